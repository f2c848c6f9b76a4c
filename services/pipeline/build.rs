//! Which commit is built, and by which compiler: for `kappa_build_info`. Who builds for others names the commit in
//! `KAPPA_REVISION`, as the container image does; asking Git here would build the crate again with each commit.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=KAPPA_REVISION");
    let revision = env::var("KAPPA_REVISION").ok().filter(|revision| !revision.is_empty());
    println!("cargo::rustc-env=KAPPA_REVISION={}", revision.as_deref().unwrap_or("unknown"));
    let compiler = env::var("RUSTC").ok().and_then(|rustc| output(&rustc, &["--version"]));
    // "rustc 1.95.0 (59807616e 2026-04-14)": the number is enough.
    let version = compiler.as_deref().and_then(|line| line.split_whitespace().nth(1));
    println!("cargo::rustc-env=KAPPA_RUSTC={}", version.unwrap_or("unknown"));
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
