# syntax=docker/dockerfile:1
# One image with the project's three programs: kappa, kappa-dashboard, kappa-loadtest.
#
#   docker build --tag kappa:local --build-arg REVISION=$(git rev-parse HEAD) .
#   docker run --rm --read-only kappa:local kappa --help

# ── build: the toolchain of rust-toolchain.toml on the Debian that the image runs ──
FROM rust:1.95.0-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082 AS build
# librdkafka and OpenSSL are compiled too. zlib is that of the system, which every Debian has at run time.
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt,sharing=locked \
    rm -f /etc/apt/apt.conf.d/docker-clean \
    && apt-get update \
    && apt-get install --yes --no-install-recommends g++ make perl pkg-config zlib1g-dev
WORKDIR /src
ARG REVISION=unknown
COPY . .
# The caches keep downloads and everything compiled between builds; what the image needs is taken out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    KAPPA_REVISION="${REVISION}" cargo build --release --locked --bin kappa --bin kappa-dashboard --bin kappa-loadtest \
    && mkdir -p /out/bin /out/reports \
    && cp target/release/kappa target/release/kappa-dashboard target/release/kappa-loadtest /out/bin/ \
    && strip --strip-unneeded /out/bin/*

# ── run: a small Debian, the programs, and the certificates that TLS needs ──
FROM debian:bookworm-20261005-slim@sha256:7c7b2c966bc9ee8cedfeef67e0e279108992c77681fa595db4a9d65c06ccc587
ARG REVISION=unknown
LABEL org.opencontainers.image.title="kappa" \
      org.opencontainers.image.description="Sensor events from Kafka to ClickHouse, Parquet on S3, and dead letters: exact, whatever fails" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --chmod=0755 deploy/image/entrypoint /usr/local/bin/entrypoint
COPY schemas/sensor-reading.avsc LICENSE /usr/share/kappa/
COPY --from=build /out/bin/ /usr/local/bin/
# For the reports of kappa-loadtest: a volume that is mounted here takes its owner.
COPY --from=build --chown=65532:65532 /out/reports /reports
# Nobody's account, and nothing in the image belongs to it but /reports: works with a read-only root file system.
USER 65532:65532
WORKDIR /
# For `kappa run`. Other commands switch it off or ask something else: see deploy/compose/compose.yaml.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 CMD ["kappa", "health"]
ENTRYPOINT ["/usr/local/bin/entrypoint"]
CMD ["kappa", "run"]
