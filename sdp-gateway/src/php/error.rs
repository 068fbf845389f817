use std::fmt;

/// Why a PHP configuration could not be read or patched. Line numbers count from 1, as PHP counts them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PhpError {
    /// The file is not valid PHP.
    #[error("the PHP does not parse, line {line}: {message}; correct it (`php -l` shows the same place)")]
    Syntax {
        /// Line of the first error.
        line: usize,
        /// What the parser expected.
        message: String,
    },
    /// `<?` outside `<?php` and `<?=`: whether it starts code depends on the server's `short_open_tag`.
    #[error("line {line} uses the short open tag `<?`, whose meaning depends on the server; write `<?php`")]
    ShortTag {
        /// Line of the tag.
        line: usize,
    },
    /// Brackets or expressions nested beyond any sensible configuration.
    #[error("line {line} nests deeper than {limit} levels; flatten the configuration")]
    TooDeep {
        /// Line where the limit was passed.
        line: usize,
        /// The limit, in levels.
        limit: usize,
    },
    /// The file is larger than any sensible configuration.
    #[error("the file has {bytes} bytes, the limit is {limit}; keep only configuration in it")]
    TooLarge {
        /// Size of the file, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// A heredoc whose label has letters outside ASCII.
    #[error("the heredoc on line {line} has a label with letters outside ASCII; use A-Z, 0-9 and _")]
    HeredocLabel {
        /// Line of the heredoc's start.
        line: usize,
    },
    /// The parser itself failed, which is a defect of the parser and not of the file.
    #[error("the PHP parser failed on this file; report it, and write the entries more simply until it is mended")]
    ParserFailed,
    /// The file has no entry for the service.
    #[error("the file has no entry `{service}_url`; add it to the gateway's configuration on this branch")]
    Absent {
        /// The service asked for.
        service: String,
    },
    /// The file has several entries for the service, so which one counts depends on the program's run.
    #[error("`{service}_url` is set on line {first} and again on line {second}; keep one of them")]
    Duplicate {
        /// The service asked for.
        service: String,
        /// Line of the first entry.
        first: usize,
        /// Line of the second entry.
        second: usize,
    },
    /// The entry is written in a way that a replaced value would not take effect or would change something else.
    #[error("`{service}_url` on line {line} cannot be replaced: {why}")]
    Unreplaceable {
        /// The service asked for.
        service: String,
        /// Line of the entry.
        line: usize,
        /// What stands in the way, and what to write instead.
        why: Unreplaceable,
    },
    /// The entry stands where PHP allows constant expressions only, so that its value cannot be chosen per request.
    #[error(
        "`{service}_url` on line {line} is in a constant expression (`const`, the default of a property, parameter or \
         static variable, an attribute), which PHP evaluates before it knows the request; write it as `define(…)` or \
         assign it in code"
    )]
    ConstantExpression {
        /// The service asked for.
        service: String,
        /// Line of the entry.
        line: usize,
    },
    /// The patched text did not read back as intended. Nothing was returned.
    #[error("the patched text reads back wrong at `{service}_url`; report it, and write that entry more simply")]
    ReadBack {
        /// The first service that differs.
        service: String,
    },
}

/// Why an entry's value cannot be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unreplaceable {
    /// Assigned with `.=`, `??=` or another compound operator.
    CompoundAssignment,
    /// Assigned by reference.
    Reference,
    /// The value's text contains another entry, or is contained in one.
    Entangled,
}

impl fmt::Display for Unreplaceable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CompoundAssignment => "it is assigned with a compound operator; assign it with `=`",
            Self::Reference => "it is a reference; assign the value itself",
            Self::Entangled => "its value is written together with another entry; give each entry its own line",
        })
    }
}
