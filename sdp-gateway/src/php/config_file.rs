use std::collections::BTreeMap;
use std::ops::Range;

use super::entries::{self, Found};
use super::guards::parseable;
use super::literal::single_quoted;
use super::parse::with_tree;
use super::{PhpError, Unreplaceable};

/// A parsed PHP configuration and its entries `<service>_url`.
///
/// ```
/// # use sdp_gateway::php::ConfigFile;
/// # use std::collections::BTreeMap;
/// let file = ConfigFile::parse("<?php\nreturn ['shop_url' => getenv('SHOP') ?: 'http://shop',]; // stable\n")?;
/// let overrides = BTreeMap::from([("shop".to_owned(), "http://127.0.0.1:9001".to_owned())]);
/// assert_eq!(
///     file.patched(&overrides)?,
///     b"<?php\nreturn ['shop_url' => 'http://127.0.0.1:9001',]; // stable\n",
/// );
/// # Ok::<(), sdp_gateway::php::PhpError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ConfigFile {
    bytes: Vec<u8>,
    /// In the file's order; a service may occur several times.
    entries: Vec<Entry>,
}

/// One place in the file that sets a service's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    service: String,
    line: usize,
    span: Range<usize>,
    literal: Option<String>,
    refusal: Option<Unreplaceable>,
}

impl Entry {
    /// The service: the key without `_url`.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The line on which the value starts, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The bytes of the file that are the value's source.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The value, when it is a plain string literal; none for an expression that only PHP can evaluate.
    pub fn literal(&self) -> Option<&str> {
        self.literal.as_deref()
    }
}

impl ConfigFile {
    /// Parses the file.
    ///
    /// # Errors
    ///
    /// [`PhpError::Syntax`] and the other errors about the file as a whole; never one about a single service.
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Result<Self, PhpError> {
        let bytes = bytes.into();
        let text = parseable(&bytes)?;
        let found = with_tree(&text, |program| entries::find(&bytes, program))?;
        let entries = found.into_iter().map(|found| entry(&bytes, found)).collect();
        Ok(Self { bytes, entries })
    }

    /// The file's bytes, as parsed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Every entry, in the file's order, duplicates included.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The source of an entry's value.
    pub fn source(&self, entry: &Entry) -> &[u8] {
        self.bytes.get(entry.span()).unwrap_or_default()
    }

    /// The one entry of `service`, if it can be replaced.
    ///
    /// # Errors
    ///
    /// [`PhpError::Absent`], [`PhpError::Duplicate`] or [`PhpError::Unreplaceable`].
    pub fn entry(&self, service: &str) -> Result<&Entry, PhpError> {
        let mut of_service = self.entries.iter().filter(|entry| entry.service == service);
        let service = service.to_owned();
        match (of_service.next(), of_service.next()) {
            (None, _) => Err(PhpError::Absent { service }),
            (Some(first), Some(second)) => Err(PhpError::Duplicate { service, first: first.line, second: second.line }),
            (Some(only), None) => match only.refusal {
                Some(why) => Err(PhpError::Unreplaceable { service, line: only.line, why }),
                None => Ok(only),
            },
        }
    }

    /// The file with the value of each service in `urls` replaced by that URL, and every other byte kept.
    ///
    /// # Errors
    ///
    /// Those of [`ConfigFile::entry`] for a service in `urls`, and [`PhpError::ReadBack`] when the patched text does
    /// not parse to exactly the intended values.
    pub fn patched(&self, urls: &BTreeMap<String, String>) -> Result<Vec<u8>, PhpError> {
        let mut splices = Vec::with_capacity(urls.len());
        for (service, url) in urls {
            splices.push((self.entry(service)?.span(), url));
        }
        splices.sort_by_key(|(span, _)| span.start);

        let mut patched = Vec::with_capacity(self.bytes.len());
        let mut kept_to = 0;
        for (span, url) in splices {
            patched.extend_from_slice(self.bytes.get(kept_to..span.start).unwrap_or_default());
            patched.extend_from_slice(single_quoted(url).as_bytes());
            kept_to = span.end;
        }
        patched.extend_from_slice(self.bytes.get(kept_to..).unwrap_or_default());

        if !urls.is_empty() {
            self.check_patched(&patched, urls)?;
        }
        Ok(patched)
    }

    fn check_patched(&self, patched: &[u8], urls: &BTreeMap<String, String>) -> Result<(), PhpError> {
        let after = Self::parse(patched)?;
        let unexpected = self.entries.iter().zip(&after.entries).find(|(before, now)| {
            before.service != now.service
                || match urls.get(&before.service) {
                    Some(url) => now.literal() != Some(url),
                    None => self.source(before) != after.source(now),
                }
        });
        match unexpected {
            None if self.entries.len() == after.entries.len() => Ok(()),
            None => Err(PhpError::ReadBack { service: urls.keys().next().cloned().unwrap_or_default() }),
            Some((before, _)) => Err(PhpError::ReadBack { service: before.service.clone() }),
        }
    }
}

fn entry(bytes: &[u8], found: Found) -> Entry {
    let source = bytes.get(found.span.clone()).unwrap_or_default();
    let value = if source.is_ascii() { found.value } else { found.value.and_then(|_| reread(source)) };
    Entry {
        service: found.service,
        line: found.line,
        span: found.span,
        literal: value.and_then(|value| String::from_utf8(value).ok()),
        refusal: found.refusal,
    }
}

/// The value of a literal whose source has letters outside ASCII, which the tree shows as placeholders only.
fn reread(source: &[u8]) -> Option<Vec<u8>> {
    let text = format!("<?php return {};", std::str::from_utf8(source).ok()?);
    with_tree(&text, |program| {
        let value = program.stmts.iter().find_map(|stmt| match &stmt.kind {
            php_ast::StmtKind::Return(Some(value)) => super::literal::string_value(value),
            _ => None,
        });
        Ok(value)
    })
    .ok()
    .flatten()
}
