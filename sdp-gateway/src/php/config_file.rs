use std::collections::BTreeMap;
use std::ops::Range;

use super::entries::{self, Found, Place};
use super::guards::parseable;
use super::literal::single_quoted;
use super::parse::with_tree;
use super::{PhpError, Unreplaceable, recent, wrapper};

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

/// A stretch of the file and what is to stand there.
type Splice = (Range<usize>, Vec<u8>);

/// One place in the file that sets a service's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    service: String,
    line: usize,
    span: Range<usize>,
    wrapper: Option<Range<usize>>,
    place: Place,
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

    /// The bytes of the file that are the value's source, without a wrapper around it.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The value, when it is a plain string literal; none for an expression that only PHP can evaluate.
    pub fn literal(&self) -> Option<&str> {
        self.literal.as_deref()
    }

    /// Whether the value is wrapped, so that it can be chosen per request.
    pub fn is_wrapped(&self) -> bool {
        self.wrapper.is_some()
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
        if let Some(known) = recent::find(&bytes) {
            return Ok(known);
        }
        let text = parseable(&bytes)?;
        let found = with_tree(&text, |program| entries::find(&bytes, program))?;
        let entries = found.into_iter().map(|found| entry(&bytes, found)).collect();
        let parsed = Self { bytes, entries };
        recent::keep(&parsed);
        Ok(parsed)
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

    /// The one entry of `service`, if its value can be chosen per request.
    ///
    /// # Errors
    ///
    /// Those of [`ConfigFile::entry`], and [`PhpError::ConstantExpression`].
    pub fn routable(&self, service: &str) -> Result<&Entry, PhpError> {
        let entry = self.entry(service)?;
        if entry.place == Place::Constant {
            return Err(PhpError::ConstantExpression { service: service.to_owned(), line: entry.line });
        }
        Ok(entry)
    }

    /// The file with the value of each service in `urls` replaced by that URL, and every other byte kept.
    ///
    /// # Errors
    ///
    /// Those of [`ConfigFile::entry`] for a service in `urls`, and [`PhpError::ReadBack`] when the patched text does
    /// not parse to exactly the intended values.
    pub fn patched(&self, urls: &BTreeMap<String, String>) -> Result<Vec<u8>, PhpError> {
        let splices = self.replacements(urls)?;
        let patched = self.spliced(splices);
        if !urls.is_empty() {
            self.check_patched(&patched, urls)?;
        }
        Ok(patched)
    }

    /// The file with every value that can be chosen per request wrapped into an expression that takes the URL from the
    /// PHP file at `table`, and the value itself where that has none. `table` is relative to the file's directory and
    /// starts with a slash: `/../../.sdp/request.php`. Values that cannot be chosen are replaced if they are in `urls`.
    /// A value that is already wrapped stays as it is, and [`ConfigFile::unwrapped`] undoes all of it.
    ///
    /// # Errors
    ///
    /// As [`ConfigFile::patched`].
    pub fn wrapped(&self, table: &str, urls: &BTreeMap<String, String>) -> Result<Vec<u8>, PhpError> {
        let mut splices = self.replacements(urls)?;
        let services = self.services();
        let to_wrap: Vec<bool> = self
            .entries
            .iter()
            .map(|entry| {
                let replaced = urls.contains_key(&entry.service);
                let once = services.get(entry.service()) == Some(&1);
                let routable = entry.place != Place::Constant && entry.refusal.is_none() && once;
                routable && !replaced && entry.wrapper.is_none()
            })
            .collect();
        let mut is_read = false;
        for (entry, _) in self.entries.iter().zip(&to_wrap).filter(|(_, wrap)| **wrap) {
            let table = Some(table).filter(|_| !is_read || entry.place == Place::Called);
            splices.push((entry.span(), wrapper::around(table, &entry.service, self.source(entry))));
            is_read |= entry.place == Place::Always;
        }
        let wrapped = self.spliced(splices);
        self.check_wrapped(&wrapped, urls, &to_wrap)?;
        Ok(wrapped)
    }

    fn check_wrapped(&self, wrapped: &[u8], urls: &BTreeMap<String, String>, to_wrap: &[bool]) -> Result<(), PhpError> {
        let after = Self::parse(wrapped)?;
        let unexpected = self.entries.iter().zip(&after.entries).zip(to_wrap).find(|((before, now), wrap)| {
            now.is_wrapped() != (before.is_wrapped() || **wrap) || !self.is_as_intended(before, &after, now, urls)
        });
        match unexpected {
            None if self.entries.len() == after.entries.len() => Ok(()),
            None => Err(PhpError::ReadBack {
                service: self.entries.first().map(|entry| entry.service.clone()).unwrap_or_default(),
            }),
            Some(((before, _), _)) => Err(PhpError::ReadBack { service: before.service.clone() }),
        }
    }

    /// Whether the entry `now` of the file `after` is what `before` should have become.
    fn is_as_intended(&self, before: &Entry, after: &Self, now: &Entry, urls: &BTreeMap<String, String>) -> bool {
        let value = match urls.get(&before.service) {
            Some(url) => now.literal() == Some(url),
            None => self.source(before) == after.source(now),
        };
        before.service == now.service && value
    }

    /// The file without wrappers: each is replaced by the value in it.
    pub fn unwrapped(&self) -> Vec<u8> {
        let wrapped = self.entries.iter().filter_map(|entry| Some((entry.wrapper.clone()?, entry)));
        self.spliced(wrapped.map(|(wrapper, entry)| (wrapper, self.source(entry).to_vec())).collect())
    }

    /// How many entries each service has.
    fn services(&self) -> BTreeMap<&str, usize> {
        let mut services = BTreeMap::new();
        for entry in &self.entries {
            *services.entry(entry.service()).or_default() += 1;
        }
        services
    }

    fn replacements(&self, urls: &BTreeMap<String, String>) -> Result<Vec<Splice>, PhpError> {
        let replaced = |(service, url): (&String, &String)| -> Result<Splice, PhpError> {
            Ok((self.entry(service)?.span(), single_quoted(url).into_bytes()))
        };
        urls.iter().map(replaced).collect()
    }

    /// The file with each of these stretches replaced. They do not overlap.
    fn spliced(&self, mut splices: Vec<Splice>) -> Vec<u8> {
        splices.sort_by_key(|(span, _)| span.start);
        let mut spliced = Vec::with_capacity(self.bytes.len());
        let mut kept_to = 0;
        for (span, text) in splices {
            spliced.extend_from_slice(self.bytes.get(kept_to..span.start).unwrap_or_default());
            spliced.extend_from_slice(&text);
            kept_to = span.end;
        }
        spliced.extend_from_slice(self.bytes.get(kept_to..).unwrap_or_default());
        spliced
    }

    fn check_patched(&self, patched: &[u8], urls: &BTreeMap<String, String>) -> Result<(), PhpError> {
        let after = Self::parse(patched)?;
        let unexpected = self
            .entries
            .iter()
            .zip(&after.entries)
            .find(|(before, now)| !self.is_as_intended(before, &after, now, urls));
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
        wrapper: found.wrapper,
        place: found.place,
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
