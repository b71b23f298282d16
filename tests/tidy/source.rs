//! Reads the repository's texts as the rules need them: without comments and literals, without test
//! modules, as the paths that they import. A few words of Rust's grammar, no parser.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One text of the repository.
pub struct Source {
    /// From the repository's top, with `/`.
    pub path: String,
    pub text: String,
    /// It is compiled for tests only, by a `#[cfg(test)]` in the file that names it.
    pub tests_only: bool,
}

impl Source {
    /// The text with comments and the contents of literals blanked, line for line.
    pub fn code(&self) -> String {
        blank(&self.text)
    }

    /// The code that ends up in the program: without the test module, which stands last.
    pub fn production(&self) -> String {
        if self.tests_only || !self.path.starts_with("src/") {
            return String::new();
        }
        let code = self.code();
        let inline = code.match_indices("#[cfg(test)]").find(|(at, mark)| {
            let rest = code[at + mark.len()..].trim_start();
            rest.starts_with("mod ") && rest.find('{') < rest.find(';').or(Some(usize::MAX))
        });
        match inline {
            Some((at, _)) => code[..at].to_string(),
            None => code,
        }
    }

    /// `net` for `src/net/conn.rs` and for `src/net.rs`.
    pub fn room(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let room = inside.split('/').next()?;
        Some(room.trim_end_matches(".rs"))
    }

    /// `agent` for anything in `src/protocols/agent`.
    pub fn protocol(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/protocols/")?;
        let name = inside.split('/').next()?.trim_end_matches(".rs");
        (name != "mod").then_some(name)
    }
}

/// Identifiers, whole.
pub fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// Every path that begins at the crate's root, by `crate::` or by climbing with `super::`, groups
/// in braces spread out.
pub fn imports(code: &str, path: &str) -> Vec<Vec<String>> {
    let dense: String = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let dense = dense
        .replace(", ", ",")
        .replace("{ ", "{")
        .replace(" }", "}");
    let mut found = Vec::new();
    for (at, mark) in dense.match_indices("crate::") {
        spread(&dense[at + mark.len()..], &[], &mut found);
    }
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    let home: Vec<&str> = inside.trim_end_matches("/mod").split('/').collect();
    for (at, _) in dense.match_indices("super::") {
        if dense[..at].ends_with("super::") {
            continue;
        }
        let mut rest = &dense[at..];
        let mut depth = home.len();
        while let Some(shorter) = rest.strip_prefix("super::") {
            rest = shorter;
            depth = depth.saturating_sub(1);
        }
        spread(rest, &home[..depth], &mut found);
    }
    found
}

/// `a::{b,c::d}` gives `a::b` and `a::c::d`; returns what follows the path.
pub fn spread<'a>(rest: &'a str, before: &[&str], found: &mut Vec<Vec<String>>) -> &'a str {
    if let Some(mut rest) = rest.strip_prefix('{') {
        while !rest.is_empty() && !rest.starts_with('}') {
            rest = spread(rest, before, found);
            // A character that starts no path, a comma mostly, is stepped over.
            rest = rest.strip_prefix(|c: char| c != '}').unwrap_or(rest);
        }
        return rest.strip_prefix('}').unwrap_or(rest);
    }
    let end = rest
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    let mut path = before.to_vec();
    path.extend((!name.is_empty()).then_some(name));
    match after.strip_prefix("::") {
        Some(deeper) if !name.is_empty() => spread(deeper, &path, found),
        _ => {
            found.push(path.iter().map(ToString::to_string).collect());
            after
        }
    }
}

/// Comments and what stands between quotes become spaces; every line break stays.
pub fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = literal_length(rest).unwrap_or(0);
        if length == 0 {
            // A word is taken whole, so that the `r` of `for"` opens no raw literal.
            let word = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let step = word.max(first.len_utf8());
            out.push_str(&rest[..step]);
            rest = &rest[step..];
            continue;
        }
        let (hidden, after) = rest.split_at(length);
        out.extend(hidden.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = after;
    }
    out
}

/// How long the comment or literal is that `rest` begins with.
pub fn literal_length(rest: &str) -> Option<usize> {
    let until = |from: usize, end: &str| rest[from..].find(end).map(|at| from + at + end.len());
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(until(2, "*/").unwrap_or(rest.len()));
    }
    let raw = rest
        .trim_start_matches('b')
        .strip_prefix('r')
        .unwrap_or_default();
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    if raw[hashes..].starts_with('"') {
        let opened = rest.len() - raw.len() + hashes + 1;
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(until(opened, &end).unwrap_or(rest.len()));
    }
    let quote = rest.chars().next().filter(|c| *c == '"' || *c == '\'')?;
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return Some(at + 1),
            // One character and no quote behind it: a lifetime, which hides nothing.
            _ if quote == '\'' && !rest[at + c.len_utf8()..].starts_with('\'') && at == 1 => {
                return None;
            }
            _ => {}
        }
    }
    Some(rest.len())
}

/// Every text that people wrote, by path.
pub fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in ["src", "tests", "bench", "conf", ".ci"] {
        collect(&top().join(folder), &mut paths);
    }
    paths.extend(["Makefile", "README.md", "Cargo.toml"].map(|name| top().join(name)));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).ok()?;
        let path = path.strip_prefix(top()).ok()?.to_str()?.to_string();
        Some(Source {
            path,
            text,
            tests_only: false,
        })
    };
    let mut sources: Vec<Source> = paths.into_iter().filter_map(read).collect();
    let hidden: Vec<String> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        let module = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
        source.tests_only = hidden.iter().any(|name| name == module);
    }
    sources
}

/// The modules of their own file that a file declares for tests only, as `src/store/faults`.
pub fn test_modules(source: &Source) -> Vec<String> {
    let code = source.code();
    let folder = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
    let folder = folder.trim_end_matches("/lib").trim_end_matches("/main");
    let declared = code.split("#[cfg(test)]").skip(1).filter_map(|rest| {
        let name = rest.trim_start().strip_prefix("mod ")?;
        let name = &name[..name.find([';', '{'])?];
        Some(format!("{folder}/{}", name.trim()))
    });
    declared.collect()
}

pub fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for path in entries.map(|entry| entry.unwrap().path()) {
        let written = path.extension().is_none_or(|ending| {
            ["rs", "sh", "toml", "md", "service"]
                .iter()
                .any(|known| ending == *known)
        });
        if path.is_dir() {
            collect(&path, paths);
        } else if written {
            paths.push(path);
        }
    }
}

/// What lies at the top: what git tracks or, where there is no git, what is there and not ignored.
pub fn top_level() -> Vec<String> {
    let listed = Command::new("git")
        .arg("-C")
        .arg(top())
        .args(["ls-files"])
        .output();
    let tracked = listed.ok().filter(|output| output.status.success());
    let mut names: Vec<String> = match tracked {
        Some(output) => String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|path| path.split('/').next().map(String::from))
            .collect(),
        None => fs::read_dir(top())
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter(|name| !["target", "data"].contains(&name.as_str()))
            .collect(),
    };
    names.sort();
    names.dedup();
    names
}

pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
