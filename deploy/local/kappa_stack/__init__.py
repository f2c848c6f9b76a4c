"""The real services of Kappa on one machine, without containers.

`cli` is the way in; `stack` puts the four services of `services/` together;
`process` starts, finds and ends processes; `downloads` fetches what is pinned.
"""
