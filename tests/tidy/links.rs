//! Links between the pages: the file is there, and so is the heading.

use super::tree::Tree;

/// Links in Markdown files whose target is not there.
pub(crate) fn broken(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".md") {
        for (line, target) in links(text) {
            if !resolves(tree, path, target) {
                findings.push(format!("{path}:{line}: {target} leads nowhere"));
            }
        }
    }
    findings
}

fn resolves(tree: &Tree, page: &str, target: &str) -> bool {
    if ["http://", "https://", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
        return true;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let Some(file) = (if file.is_empty() { Some(page.to_owned()) } else { from_root(page, file) }) else { return false };
    if !tree.has(&file) {
        return false;
    }
    let headings = || tree.text(&file).unwrap_or_default().lines().filter(|line| line.starts_with('#')).map(anchor_of);
    anchor.is_empty() || headings().any(|heading| heading == anchor)
}

/// A link from a page, as a path from the root; `None` when it leaves the repository.
fn from_root(page: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in link.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// As GitHub makes them: lower case, blanks become dashes, punctuation goes.
fn anchor_of(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        letter => letter.is_alphanumeric().then_some(letter),
    });
    kept.collect::<String>().to_lowercase()
}

/// Line and target of each `[text](target)` outside code.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            continue;
        }
        let mut rest = if in_code { "" } else { line };
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, after)) = after.split_once(')') else { break };
            found.push((index + 1, target.split_whitespace().next().unwrap_or("")));
            rest = after;
        }
    }
    found
}
