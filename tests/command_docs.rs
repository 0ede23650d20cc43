//! The pages that show commands show ones that there are: each option is one of its command's, and the guide has all of those of `deploy`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use switchback_tests::binary;

fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)).unwrap()
}

/// `dry-run` of `dry-run <X>` or `dry-run=x`.
fn name(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_ascii_lowercase() || *letter == '-').collect()
}

/// The options of a command, without their dashes, as its help has them.
fn options(command: &[&str]) -> BTreeSet<String> {
    let output = Command::new(binary()).args(command).arg("--help").output().unwrap();
    assert!(output.status.success(), "switchback {command:?}: {}", String::from_utf8_lossy(&output.stderr));
    let help = String::from_utf8(output.stdout).unwrap();
    help.lines().filter_map(|line| line.strip_prefix("      --")).map(name).collect()
}

/// The commands in a page's blocks of shell: the words of each, without the program. The script takes what `deploy` takes.
fn commands(page: &str) -> Vec<Vec<&str>> {
    let (mut commands, mut is_shell) = (Vec::new(), false);
    for line in page.lines() {
        if line.starts_with("```") {
            is_shell = line == "```sh";
            continue;
        }
        let mut words = line.split_whitespace().take_while(|word| !matches!(*word, "&" | "#" | "|"));
        match words.next().and_then(|program| program.rsplit('/').next()).filter(|_| is_shell) {
            Some("switchback") => commands.push(words.collect()),
            Some("deploy_model.sh") => commands.push(std::iter::once("deploy").chain(words).collect()),
            _ => {}
        }
    }
    commands
}

#[test]
fn every_command_that_is_shown_has_the_options_that_it_is_shown_with() {
    for (file, least) in [("README.md", 5), ("docs/model-deployment-guide.md", 10), ("docs/REGISTRY.md", 3)] {
        let text = page(file);
        let shown = commands(&text);
        assert!(shown.len() >= least, "{file}: {shown:?}");
        for words in shown {
            let is_option = |word: &&&str| word.starts_with("--");
            let before: Vec<&str> = words.iter().take_while(|word| !is_option(word)).copied().collect();
            let known = options(&before);
            let unknown: Vec<&&str> = words.iter().filter(is_option).filter(|word| !known.contains(&name(&word[2..]))).collect();
            assert!(unknown.is_empty(), "{file}: switchback {}: {unknown:?}", words.join(" "));
        }
    }
}

#[test]
fn the_guide_has_every_option_of_a_deployment_and_no_other() {
    let guide = page("docs/model-deployment-guide.md");
    let (_, rest) = guide.split_once("\n## Options\n").unwrap();
    let table = rest.lines().take_while(|line| !line.starts_with("## "));
    let cells = table.filter_map(|line| line.strip_prefix("| `--")).filter_map(|row| row.split('|').next());
    let mut documented = BTreeSet::new();
    for cell in cells {
        documented.insert(name(cell));
        documented.extend(cell.split('`').filter_map(|text| text.strip_prefix("--")).map(name));
    }
    assert_eq!(documented, options(&["deploy"]));
}
