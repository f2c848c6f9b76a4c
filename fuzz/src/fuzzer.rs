//! The search: mutate, run, keep what is answered in new words.

use std::collections::HashSet;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::allocations::measured;

/// By default, seconds a target.
const SECONDS: f64 = 2.5;
/// A run that takes longer is a hang.
const LONGEST_RUN: Duration = Duration::from_secs(5);
/// Inputs do not grow beyond.
const LARGEST_INPUT: usize = 64 << 10;
/// Nor the corpus in memory.
const LARGEST_CORPUS: usize = 4_000;
/// What is kept in the repository: small, and few.
const LARGEST_KEPT: usize = 1 << 10;
const MOST_KEPT: usize = 40;
/// Numbers at which readers err.
const ODD_NUMBERS: [i64; 14] =
    [0, 1, -1, 2, 127, 128, 255, 32_767, 65_535, i32::MAX as i64, i32::MIN as i64, u32::MAX as i64, i64::MAX, i64::MIN];

/// Something that reads bytes.
pub trait Target {
    /// The name of its directories.
    fn name(&self) -> &'static str;
    /// Good inputs.
    fn seeds(&self) -> Vec<Vec<u8>>;
    /// What it makes of an input, in words. Panics if what it made is wrong.
    fn run(&self, input: &[u8]) -> String;
    /// The most bytes it may hold at once.
    fn memory_allowed(&self, input: &[u8]) -> usize;
}

/// Runs a target for `KAPPA_FUZZ_SECONDS`.
///
/// # Panics
/// With the input in a file, if the target panics, hangs, or takes too much memory.
pub fn fuzz(target: &(impl Target + Sync)) {
    let seconds = number("KAPPA_FUZZ_SECONDS").unwrap_or(SECONDS);
    let seed = number("KAPPA_FUZZ_SEED").unwrap_or(0.0) as u64;
    let (beats, watched) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || watch(&watched, target.name()));
        let mut search = Search::new(target, seed, beats);
        search.replay();
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < until {
            for _ in 0..64 {
                search.step();
            }
        }
        search.report();
    });
}

fn number(variable: &str) -> Option<f64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Ends the process when a run does not end: there is no other way to stop it.
fn watch(beats: &mpsc::Receiver<Vec<u8>>, name: &str) {
    let mut running = Vec::new();
    loop {
        match beats.recv_timeout(LONGEST_RUN) {
            Ok(input) => running = input,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                // Not by `eprintln!`: the test runner keeps that back until a test ends.
                let file = save("failures", name, &running);
                _ = writeln!(io::stderr(), "{name} hangs: {}", file.display());
                std::process::abort();
            }
        }
    }
}

struct Search<'a, T> {
    target: &'a T,
    random: ChaCha8Rng,
    corpus: Vec<Vec<u8>>,
    words: HashSet<u64>,
    beats: mpsc::Sender<Vec<u8>>,
    runs: u64,
    kept: usize,
    largest: usize,
}

impl<'a, T: Target> Search<'a, T> {
    fn new(target: &'a T, seed: u64, beats: mpsc::Sender<Vec<u8>>) -> Self {
        let random = ChaCha8Rng::seed_from_u64(seed ^ xxh3_64(target.name().as_bytes()));
        Self { target, random, corpus: Vec::new(), words: HashSet::new(), beats, runs: 0, kept: 0, largest: 0 }
    }

    /// Everything that is known: seeds, the corpus, and what once broke.
    fn replay(&mut self) {
        let name = self.target.name();
        let found = read_all(&directory("corpus", name));
        self.kept = found.len();
        for input in self.target.seeds().into_iter().chain(read_all(&directory("regressions", name))).chain(found) {
            self.run(&input);
            self.corpus.push(input);
        }
    }

    fn step(&mut self) {
        let input = self.mutated();
        if !self.run(&input) || self.corpus.len() >= LARGEST_CORPUS {
            return;
        }
        if std::env::var_os("KAPPA_FUZZ_KEEP").is_some() && input.len() <= LARGEST_KEPT && self.kept < MOST_KEPT {
            self.kept += 1;
            write(&directory("corpus", self.target.name()), &input);
        }
        self.corpus.push(input);
    }

    /// Whether the answer was a new one.
    fn run(&mut self, input: &[u8]) -> bool {
        self.runs += 1;
        _ = self.beats.send(input.to_vec());
        let (outcome, peak) = measured(|| catch_unwind(AssertUnwindSafe(|| self.target.run(input))));
        let name = self.target.name();
        let Ok(answer) = outcome else {
            panic!("{name} panics: {}", save("failures", name, input).display());
        };
        let allowed = self.target.memory_allowed(input);
        assert!(
            peak <= allowed,
            "{name} held {peak} B, {allowed} are allowed: {}",
            save("failures", name, input).display()
        );
        self.largest = self.largest.max(peak);
        self.words.insert(hash_of_words(&answer))
    }

    fn mutated(&mut self) -> Vec<u8> {
        let mut input = self.one().clone();
        for _ in 0..1 << self.random.random_range(0..5) {
            self.mutate(&mut input);
        }
        input.truncate(LARGEST_INPUT);
        input
    }

    fn one(&mut self) -> &Vec<u8> {
        // What was found last leads further.
        let count = self.corpus.len();
        let at = if self.random.random_bool(0.5) {
            self.random.random_range(count - count.div_ceil(4)..count)
        } else {
            self.random.random_range(0..count)
        };
        &self.corpus[at]
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        let at = self.random.random_range(0..=input.len());
        let random = &mut self.random;
        match random.random_range(0..9) {
            0 => set(input, at, |byte| byte ^ 1 << random.random_range(0..8)),
            1 => set(input, at, |_| random.random()),
            2 => input.insert(at, random.random()),
            3 => {
                let end = (at + random.random_range(1..16)).min(input.len());
                input.drain(at..end);
            }
            4 => {
                let end = (at + random.random_range(1..64)).min(input.len());
                let copy = input[at..end].to_vec();
                let to = random.random_range(0..=input.len());
                input.splice(to..to, copy);
            }
            5 => input.truncate(at),
            6 => {
                let odd = ODD_NUMBERS[random.random_range(0..ODD_NUMBERS.len())];
                let width = [1, 2, 4, 8][random.random_range(0..4)];
                let bytes = if random.random_bool(0.5) {
                    odd.to_le_bytes()[..width].to_vec()
                } else {
                    odd.to_be_bytes()[8 - width..].to_vec()
                };
                let end = (at + width).min(input.len());
                input.splice(at..end, bytes);
            }
            7 => {
                // Avro's numbers: zigzag, seven bits a byte.
                let odd = ODD_NUMBERS[random.random_range(0..ODD_NUMBERS.len())];
                let end = (at + random.random_range(0..3)).min(input.len());
                input.splice(at..end, varint(odd));
            }
            _ => {
                let other = self.one().clone();
                let from = self.random.random_range(0..=other.len());
                let to = self.random.random_range(from..=other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
        }
    }

    fn report(&self) {
        println!(
            "fuzz {}: {} inputs, {} different answers, {} B at most",
            self.target.name(),
            self.runs,
            self.words.len(),
            self.largest
        );
    }
}

fn set(input: &mut [u8], at: usize, change: impl FnOnce(u8) -> u8) {
    if let Some(byte) = input.get_mut(at) {
        *byte = change(*byte);
    }
}

fn varint(number: i64) -> Vec<u8> {
    let mut rest = (number << 1 ^ number >> 63) as u64;
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

/// Numbers differ from input to input and mean nothing; what is quoted comes from the input.
fn hash_of_words(answer: &str) -> u64 {
    let mut hasher = Xxh3::new();
    let mut quoted = false;
    for character in answer.chars().take(400) {
        quoted ^= matches!(character, '`' | '"');
        if !quoted && !character.is_ascii_digit() {
            character.hash(&mut hasher);
        }
    }
    hasher.finish()
}

fn directory(kind: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join(name)
}

/// Where an input that broke something was put.
fn save(kind: &str, name: &str, input: &[u8]) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    write(&target.join("fuzz").join(kind).join(name), input)
}

/// Writes an input into a directory, under its hash as name; the file.
///
/// # Panics
/// Where it cannot be written.
pub fn write(directory: &Path, input: &[u8]) -> PathBuf {
    let file = directory.join(format!("{:016x}", xxh3_64(input)));
    let written = fs::create_dir_all(directory).and_then(|()| fs::write(&file, input));
    written.unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
    file
}

fn read_all(directory: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    files.iter().filter_map(|file| fs::read(file).ok()).collect()
}
