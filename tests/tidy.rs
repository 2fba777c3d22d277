//! Style that a program can check.
//!
//! Each test reads the workspace's own files and names every place that breaks its rule. What rustc, clippy and rustfmt
//! check is left to them.

use std::fs;
use std::path::{Path, PathBuf};

/// Most lines of a source file before its tests.
const MAX_LINES: usize = 600;
/// Directories with Rust files.
const SOURCES: &[&str] = &["src", "cli", "xtask", "perf", "testbed", "tests", "fuzz"];
/// The rooms that may say `unsafe`, and the one file of test support.
const UNSAFE_ROOMS: &[&str] = &["src/rings/", "src/boot/", "tests/support/allocators.rs"];
/// Rooms of the appliance, and what each must not know: dependencies point downwards only.
const FORBIDDEN_USES: &[(&str, &[&str])] = &[
    ("src/rings/", &["net", "tcp_gso", "cache", "http", "shell", "appliance", "boot"]),
    ("src/cache/", &["net", "tcp_gso", "http", "shell", "appliance", "boot"]),
    ("src/tcp_gso/", &["net", "cache", "http", "shell", "appliance", "boot"]),
    ("src/net/", &["cache", "http", "shell", "appliance", "boot"]),
    ("src/http/", &["net", "shell", "appliance", "boot"]),
    ("src/shell/", &["boot"]),
    ("src/appliance/", &["boot"]),
];

/// A Rust file of the workspace.
struct Source {
    /// Path from the root, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// The lines with their numbers, without comments and without what stands between quotes.
    fn code(&self) -> impl Iterator<Item = (usize, String)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, bare(line)))
    }

    /// As [`Source::code`], up to the tests.
    fn code_before_tests(&self) -> impl Iterator<Item = (usize, String)> {
        let lines = if self.is_test() { 0 } else { self.lines_before_tests() };
        self.code().take(lines)
    }

    fn lines_before_tests(&self) -> usize {
        self.text.lines().position(|line| line.trim() == "#[cfg(test)]").unwrap_or(self.text.lines().count())
    }

    /// True for files that hold nothing but tests.
    fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part == "tests.rs" || part.ends_with("_tests.rs"))
    }
}

/// A line without its comment and without the insides of its string literals.
fn bare(line: &str) -> String {
    let mut kept = String::new();
    let mut characters = line.chars().peekable();
    let mut in_string = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' if in_string => drop(characters.next()),
            '"' => in_string = !in_string,
            '/' if !in_string && characters.peek() == Some(&'/') => break,
            // A quote as a character literal opens no string.
            '\'' if !in_string && characters.peek() == Some(&'"') => drop(characters.next()),
            _ if in_string => {}
            _ => kept.push(character),
        }
    }
    kept
}

/// True if `word` stands in `code` with no letter, digit or underscore beside it.
fn has_word(code: &str, word: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    code.match_indices(word).any(|(start, _)| {
        !code[..start].chars().next_back().is_some_and(is_part)
            && !code[start + word.len()..].chars().next().is_some_and(is_part)
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every Rust file of the workspace, in order.
fn sources() -> Vec<Source> {
    let mut directories: Vec<PathBuf> = SOURCES.iter().map(|name| root().join(name)).filter(|d| d.is_dir()).collect();
    let mut found = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory of the workspace") {
            let path = entry.expect("an entry of a directory").path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).expect("it lies in the workspace").display().to_string();
                found.push(Source { text: read(&path), path: name });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.iter().any(|source| source.path == "src/lib.rs"), "the search finds nothing");
    found
}

/// Fails with all complaints, one a line.
fn check(rule: &str, complaints: impl IntoIterator<Item = String>) {
    let complaints: Vec<String> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "{rule}:\n{}", complaints.join("\n"));
}

#[test]
fn unsafe_stays_in_its_rooms() {
    let places = sources().into_iter().filter(|s| !UNSAFE_ROOMS.iter().any(|room| s.path.starts_with(room)));
    let complaints = places.flat_map(|source| {
        let lines: Vec<usize> =
            source.code().filter(|(_, code)| has_word(code, "unsafe")).map(|(line, _)| line).collect();
        lines.into_iter().map(move |line| format!("{}:{line}", source.path))
    });
    check("`unsafe` outside its rooms", complaints);
}

#[test]
fn the_rooms_without_unsafe_forbid_it() {
    let text = read("src/lib.rs");
    let lines: Vec<&str> = text.lines().collect();
    let modules = lines.windows(2).filter(|pair| pair[1].contains("mod ") && pair[1].ends_with(';'));
    let bare: Vec<&str> =
        modules.filter(|pair| pair[0].trim() != "#[forbid(unsafe_code)]").map(|pair| pair[1]).collect();
    let allowed = ["pub mod rings;", "pub mod boot;"];
    check(
        "modules without #[forbid(unsafe_code)]",
        bare.iter().filter(|line| !allowed.contains(line)).map(|line| line.to_string()),
    );
    let crates = ["cli/src/main.rs", "xtask/src/main.rs", "perf/src/main.rs", "testbed/src/lib.rs"];
    let present = crates.iter().filter(|path| root().join(path).exists());
    check(
        "crates without #![forbid(unsafe_code)]",
        present.filter(|path| !read(path).contains("#![forbid(unsafe_code)]")).map(|path| path.to_string()),
    );
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = sources().into_iter().filter(|source| !source.text.starts_with("//! "));
    check("files without a module doc at the top", silent.map(|source| source.path));
}

#[test]
fn no_file_is_too_long() {
    let long = sources().into_iter().filter(|s| !s.is_test() && s.lines_before_tests() > MAX_LINES);
    let complaints = long.map(|source| format!("{}: {} lines", source.path, source.lines_before_tests()));
    check(&format!("more than {MAX_LINES} lines before the tests"), complaints);
}

#[test]
fn nothing_is_left_for_later() {
    // In two parts, so that this file passes its own test.
    let marks = [("TO", "DO"), ("FIX", "ME"), ("XX", "X")].map(|(a, b)| format!("{a}{b}"));
    let attributes = [
        ("#[ign", "ore"),
        ("allow(dead", "_code"),
        ("allow(unus", "ed"),
        ("expect(dead", "_code"),
        ("expect(unus", "ed"),
    ]
    .map(|(a, b)| format!("{a}{b}"));
    let complaints = sources().into_iter().flat_map(|source| {
        let lines = source.text.lines().enumerate();
        let found = lines.filter(|(_, line)| {
            marks.iter().any(|mark| has_word(line, mark)) || attributes.iter().any(|a| line.contains(a.as_str()))
        });
        found.map(|(index, line)| format!("{}:{}: {}", source.path, index + 1, line.trim())).collect::<Vec<_>>()
    });
    check("marks of unfinished work", complaints);
}

#[test]
fn the_appliance_names_core_and_alloc_instead_of_std() {
    let appliance =
        sources().into_iter().filter(|s| s.path.starts_with("src/") && !s.path.starts_with("src/rings/host"));
    let complaints = appliance.flat_map(|source| {
        let lines = source.code_before_tests().filter(|(_, code)| has_word(code, "std") && code.contains("std::"));
        lines.map(|(line, _)| format!("{}:{line}", source.path)).collect::<Vec<_>>()
    });
    check("`std::` in the appliance", complaints);
}

#[test]
fn rooms_know_only_what_lies_below_them() {
    let complaints = sources().into_iter().flat_map(|source| {
        let rule = FORBIDDEN_USES.iter().find(|(room, _)| source.path.starts_with(room));
        let above = rule.map_or(&[][..], |(_, above)| above);
        let lines = source
            .code_before_tests()
            .filter(|(_, code)| above.iter().any(|room| has_word(code, &format!("crate::{room}"))));
        lines.map(|(line, code)| format!("{}:{line}: {}", source.path, code.trim())).collect::<Vec<_>>()
    });
    check("a room that knows one above it", complaints);
}

#[test]
fn every_command_in_the_documents_exists() {
    let cli = read("cli/src/main.rs");
    let xtask = read("xtask/src/main.rs");
    let mut complaints = Vec::new();
    for document in ["README.md", "ARCHITECTURE.md"] {
        for (index, line) in read(document).lines().enumerate() {
            for command in commands(line) {
                let words: Vec<&str> = command.split_whitespace().collect();
                let after = |marker: &[&str]| {
                    let start = words.windows(marker.len()).position(|window| window == marker)? + marker.len();
                    words.get(start).copied()
                };
                let (word, program) = match (after(&["cargo", "xtask"]), after(&["--"]), after(&["minicache"])) {
                    (Some(word), ..) => (word, &xtask),
                    (None, Some(word), _) if command.contains("cargo run") => (word, &cli),
                    (None, None, Some(word)) => (word, &cli),
                    _ => continue,
                };
                let variant = word[..1].to_uppercase() + &word[1..];
                if !has_word(program, &variant) && !word.starts_with('-') {
                    complaints.push(format!("{document}:{}: {command}", index + 1));
                }
            }
        }
    }
    check("commands that no program knows", complaints);
}

#[test]
fn every_path_in_the_documents_exists() {
    let mut complaints = Vec::new();
    for document in ["README.md", "ARCHITECTURE.md"] {
        for (index, line) in read(document).lines().enumerate() {
            for quoted in commands(line) {
                let is_path = SOURCES.iter().any(|directory| quoted.starts_with(&format!("{directory}/")))
                    || quoted.starts_with("docs/")
                    || quoted.starts_with("demofs/");
                let word = quoted.split([' ', ':']).next().expect("split yields at least one part");
                if is_path && !root().join(word).exists() {
                    complaints.push(format!("{document}:{}: {word}", index + 1));
                }
            }
        }
    }
    check("paths that do not exist", complaints);
}

/// What a line of a document quotes as code: between backticks, or the whole line where it is indented or begins with a
/// command.
fn commands(line: &str) -> Vec<&str> {
    let mut quoted: Vec<&str> = line.split('`').skip(1).step_by(2).filter(|part| !part.is_empty()).collect();
    let command = line.trim().trim_start_matches("$ ");
    if command.starts_with("cargo ") || command.starts_with("minicache ") {
        quoted.push(command);
    }
    quoted
}

#[test]
fn the_checks_themselves_see() {
    assert_eq!(bare("let x = \"a // \\\" b\"; y // c"), "let x = ; y ");
    assert_eq!(bare("if c == '\"' { d }"), "if c == ' { d }");
    assert!(has_word("unsafe {", "unsafe") && has_word("(unsafe)", "unsafe"));
    assert!(!has_word("unsafe_code", "unsafe") && !has_word("is_unsafe", "unsafe"));
    assert_eq!(commands("run `cargo xtask test` now"), ["cargo xtask test"]);
    assert_eq!(commands("    cargo run --release -- serve demofs"), ["cargo run --release -- serve demofs"]);
}
