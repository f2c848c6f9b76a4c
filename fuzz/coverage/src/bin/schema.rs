#![no_main]

kappa_fuzz_coverage::under_libfuzzer!(kappa_fuzz::targets::SchemaText::new());
