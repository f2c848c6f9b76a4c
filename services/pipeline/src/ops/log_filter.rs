//! `RUST_LOG`, with what a library says too often left out.

use tracing_subscriber::EnvFilter;

/// During an outage `object_store` reports every try of every request at INFO; we report the outage once.
const QUIET: &str = "object_store=warn";

/// What `RUST_LOG` asks for, if it asks for anything that can be understood.
pub(crate) fn from_environment() -> Option<EnvFilter> {
    let directives = std::env::var(EnvFilter::DEFAULT_ENV).ok()?;
    with_quiet_libraries(&directives)
}

/// The directives, and those for libraries that are too talkative: a directive that names such a library wins.
pub(crate) fn with_quiet_libraries(directives: &str) -> Option<EnvFilter> {
    if directives.trim().is_empty() {
        return None;
    }
    // Of two directives for the same target the later one counts.
    EnvFilter::try_new(format!("{QUIET},{directives}")).ok()
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(directives: &str) -> String {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(with_quiet_libraries(directives).unwrap())
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "object_store::client::retry", "said often");
            tracing::warn!(target: "object_store::client::retry", "warning");
            tracing::info!(target: "kappa_pipeline::run", "ours");
        });
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_object_store_is_quiet_unless_it_is_named() {
        for directives in ["info", "debug", "info,kappa_pipeline=debug"] {
            let text = logged(directives);
            assert!(
                !text.contains("said often") && text.contains("warning") && text.contains("ours"),
                "{directives}: {text}"
            );
        }
        for directives in ["info,object_store=info", "object_store=debug,info", "info,object_store::client=info"] {
            let text = logged(directives);
            assert!(text.contains("said often") && text.contains("ours"), "{directives}: {text}");
        }
        assert!(with_quiet_libraries(" ").is_none() && with_quiet_libraries("=/=").is_none());
    }
}
