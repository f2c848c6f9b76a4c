//! Running it: metrics, health, status, migrations, and the checks before and during operation.

mod dependencies;
pub mod advice;
pub mod status;

pub use dependencies::{Dependency, DependencyReport};
