//! Lines, blocks of `key=value` lines, and lists of numbers.

use std::ops::RangeInclusive;
use std::str::FromStr;

use super::super::error::{Malformed, shown};

/// What comes after the last tree.
pub(super) const END_OF_TREES: &str = "end of trees";

/// A line without its end.
pub(super) struct Line<'a> {
    pub(super) text: &'a str,
    /// From 1.
    pub(super) number: usize,
    /// Where it begins, in bytes of the file.
    pub(super) start: usize,
}

/// The lines of a file, first to last.
pub(super) struct Lines<'a> {
    rest: &'a str,
    offset: usize,
    number: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Lines<'a> {
        Lines { rest: text, offset: 0, number: 1 }
    }

    /// Bytes that were read.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// The next line, which stays.
    pub(super) fn peek(&self) -> Result<Option<Line<'a>>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let Some((text, _)) = self.rest.split_once('\n') else {
            return Err(Malformed::new(format_args!("line {}", self.number), "has no end: the file was cut off"));
        };
        Ok(Some(Line { text: text.strip_suffix('\r').unwrap_or(text), number: self.number, start: self.offset }))
    }

    /// The next line; none at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Line<'a>>, Malformed> {
        let line = self.peek()?;
        if let Some((text, rest)) = self.rest.split_once('\n') {
            (self.rest, self.offset, self.number) = (rest, self.offset + text.len() + 1, self.number + 1);
        }
        Ok(line)
    }

    /// Passes lines without text.
    pub(super) fn skip_blank(&mut self) -> Result<(), Malformed> {
        while self.peek()?.is_some_and(|line| line.text.is_empty()) {
            self.next()?;
        }
        Ok(())
    }
}

/// A block of lines `key=value`, or `key` alone, each key once.
pub(super) struct Fields<'a> {
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Fields<'a> {
    /// Up to a blank line, and past it and those that follow; or up to a line that is not part of it.
    pub(super) fn read(lines: &mut Lines<'a>, most: usize, is_beyond: impl Fn(&str) -> bool) -> Result<Fields<'a>, Malformed> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        while let Some(line) = lines.peek()?.filter(|line| !line.text.is_empty() && !is_beyond(line.text)) {
            let (key, value) = line.text.split_once('=').unwrap_or((line.text, ""));
            let place = format_args!("line {}", line.number).to_string();
            if pairs.iter().any(|(other, _)| *other == key) {
                return Err(Malformed::new(place, format!("{} is there twice", shown(key))));
            }
            if pairs.len() == most {
                return Err(Malformed::new(place, format!("there are more than {most} lines without a blank one")));
            }
            pairs.push((key, value));
            lines.next()?;
        }
        lines.skip_blank()?;
        Ok(Fields { pairs })
    }

    /// The value of a key, if it is there.
    pub(super) fn find(&self, key: &str) -> Option<&'a str> {
        self.pairs.iter().find(|(other, _)| *other == key).map(|(_, value)| *value)
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Result<&'a str, Malformed> {
        self.find(key).ok_or_else(|| Malformed::new(key, "is missing"))
    }

    /// A whole number.
    pub(super) fn number(&self, key: &str, allowed: RangeInclusive<i64>) -> Result<i64, Malformed> {
        let text = self.get(key)?;
        match text.trim().parse() {
            Ok(number) if allowed.contains(&number) => Ok(number),
            _ => Err(Malformed::new(format!("{key} = {}", shown(text)), format!("must be {}", span(&allowed)))),
        }
    }

    /// So many whole numbers.
    pub(super) fn numbers<T: TryFrom<i64>>(&self, key: &str, count: usize, allowed: RangeInclusive<i64>) -> Result<Vec<T>, Malformed> {
        let mut numbers = Vec::new();
        for (place, word) in self.get(key)?.split_ascii_whitespace().enumerate() {
            let number = i64::from_str(word).ok().filter(|number| allowed.contains(number));
            let number = number.and_then(|number| T::try_from(number).ok());
            numbers.push(
                number.ok_or_else(|| Malformed::new(format!("{key}[{place}] = {}", shown(word)), format!("must be {}", span(&allowed))))?,
            );
        }
        check_count(key, numbers.len(), count)?;
        Ok(numbers)
    }

    /// So many numbers that are finite.
    pub(super) fn finite(&self, key: &str, count: usize) -> Result<(), Malformed> {
        self.decimals(key, count, |number| number.is_finite(), "a finite number")
    }

    /// So many numbers, infinite ones among them.
    pub(super) fn thresholds(&self, key: &str, count: usize) -> Result<(), Malformed> {
        self.decimals(key, count, |number| !number.is_nan(), "a number, or infinite")
    }

    /// What scoring does not need: so many numbers, whatever they are, or nothing at all.
    pub(super) fn statistics(&self, key: &str, count: usize) -> Result<(), Malformed> {
        match self.find(key).map(str::trim) {
            None | Some("") => Ok(()),
            // Of a tree that is one leaf, versions differ: nothing, or a zero for a split that is not there.
            Some("0") if count == 0 => Ok(()),
            Some(_) => self.decimals(key, count, |_| true, "a number"),
        }
    }

    fn decimals(&self, key: &str, count: usize, is_right: fn(f64) -> bool, what: &str) -> Result<(), Malformed> {
        let mut found = 0;
        for (place, word) in self.get(key)?.split_ascii_whitespace().enumerate() {
            if !f64::from_str(word).is_ok_and(is_right) {
                return Err(Malformed::new(format!("{key}[{place}] = {}", shown(word)), format!("must be {what}")));
            }
            found += 1;
        }
        check_count(key, found, count)
    }
}

/// Fails unless a list is as long as it must be.
pub(super) fn check_count(key: &str, found: usize, count: usize) -> Result<(), Malformed> {
    if found == count { Ok(()) } else { Err(Malformed::new(key, format!("has {found} values: must be {count}"))) }
}

fn span(allowed: &RangeInclusive<i64>) -> String {
    match (allowed.start(), allowed.end()) {
        (start, end) if start == end => start.to_string(),
        (start, end) => format!("a whole number from {start} to {end}"),
    }
}
