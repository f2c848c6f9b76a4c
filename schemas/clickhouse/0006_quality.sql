-- Quality by site, metric and minute of arrival, over all partitions and segments.
--
-- completeness: events seen of those that the sensors' numbers say there are. A gap is charged to the minute of the reading
-- behind it, and taken back in the minute of a late one that fills it: over an hour the two cancel.
-- validity: events of all records that arrived, duplicates apart. freshness: from event time to arrival.
CREATE OR REPLACE VIEW {database}.quality AS
SELECT
    `site`,
    `metric`,
    `minute`,
    seen AS `accepted`,
    greatest(toInt64(seen) + gaps, 0) AS `expected`,
    if(toInt64(seen) + gaps > 0, least(seen / (toInt64(seen) + gaps), 1), 1) AS `completeness`,
    refused AS `rejected`,
    if(seen + refused > 0, seen / (seen + refused), 1) AS `validity`,
    bad AS `bad_quality`,
    twice AS `duplicates`,
    anew AS `restarts`,
    if(seen > 0, delays / seen / 1000, 0) AS `mean_delay_seconds`,
    longest / 1000 AS `max_delay_seconds`
FROM
(
    SELECT
        `site`,
        `metric`,
        `minute`,
        sum(q.`accepted`) AS seen,
        sum(q.`missing`) AS gaps,
        sum(q.`rejected`) AS refused,
        sum(q.`bad_quality`) AS bad,
        sum(q.`duplicates`) AS twice,
        sum(q.`restarts`) AS anew,
        sum(q.`delay_sum_ms`) AS delays,
        max(q.`delay_max_ms`) AS longest
    FROM {database}.quality_1m AS q FINAL
    GROUP BY `site`, `metric`, `minute`
    SETTINGS do_not_merge_across_partitions_select_final = 1
);
