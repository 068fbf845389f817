//! Validated names. What a person types is parsed into one of these at the edge; past it, a name
//! is safe to use in a path, an argument, a label or a URL segment.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::ids::{InstanceKey, TokenId};

/// Why a text is not a valid name of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {kind}: {reason}")]
pub struct InvalidName {
    /// The kind of name, in words: `branch name`.
    pub kind: &'static str,
    /// The text as given, cut to 80 characters.
    pub text: String,
    /// What is wrong with it and what is allowed.
    pub reason: &'static str,
}

impl InvalidName {
    fn new(kind: &'static str, text: &str, reason: &'static str) -> Self {
        Self { kind, text: text.chars().take(80).collect(), reason }
    }
}

/// The checks below as regular expressions of JSON Schema, for the description of the API.
#[cfg_attr(not(feature = "openapi"), expect(dead_code, reason = "only described with the feature `openapi`"))]
mod pattern {
    pub(super) const LABEL: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$";
    pub(super) const SLUG: &str = r"^[a-z0-9]((\.?[a-z0-9_-])*\.?[a-z0-9])?$";
    pub(super) const IDENTIFIER: &str = "^[A-Za-z][A-Za-z0-9_]*$";
    pub(super) const VARIABLE: &str = "^[A-Za-z_][A-Za-z0-9_]*$";
    pub(super) const BRANCH: &str =
        r"^(?!-|@$|HEAD$|\.|/)(?!.*(\.\.|@\{|//|/\.|\.lock/|\.lock$|\.$|/$))[^\x00-\x20\x7f-\x9f~^:?*\[\\]+$";
    pub(super) const USER: &str = r"^[^\x00-\x1f\x7f-\x9f:]+$";
    pub(super) const LINE: &str = r"^[^\x00-\x1f\x7f-\x9f\s]([^\x00-\x1f\x7f-\x9f]*[^\x00-\x1f\x7f-\x9f\s])?$";
    pub(super) const KEY: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?-[a-z0-9]{8,16}$";
    pub(super) const SUBJECT: &str = r"^[^\x00-\x1f\x7f-\x9f/]+(/[^\x00-\x1f\x7f-\x9f/]+)*$";
    pub(super) const COMMIT: &str = "^([0-9a-f]{40}|[0-9a-f]{64})$";
}

/// Defines a name type: a string that passed `$check`, with the conversions that keep it so.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:expr, $pattern:path, $max:literal, $example:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Parses `text`, refusing what the type's rules do not allow.
            ///
            /// # Errors
            /// [`InvalidName`] says which rule was broken.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                let check: fn(&str) -> Result<(), &'static str> = $check;
                match check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(reason) => Err(InvalidName::new($kind, &text, reason)),
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        #[cfg(feature = "openapi")]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "description": concat!("A ", $kind, "."),
                    "pattern": $pattern,
                    "minLength": 1,
                    "maxLength": $max,
                    "examples": [$example],
                })
            }
        }
    };
}

name_type! {
    /// An agent: `micro-92`. Lower-case letters, digits and inner hyphens, at most 63 characters.
    AgentName, "agent name", dns_label, pattern::LABEL, 63, "micro-92"
}
name_type! {
    /// A sandbox: `checkout-fix`. Lower-case letters, digits and inner hyphens, at most 63 characters.
    SandboxName, "sandbox name", dns_label, pattern::LABEL, 63, "checkout-fix"
}
name_type! {
    /// An environment: `qa`. Lower-case letters, digits and inner hyphens, at most 63 characters.
    EnvironmentName, "environment name", dns_label, pattern::LABEL, 63, "qa"
}
name_type! {
    /// A template: `checkout`. Lower-case letters, digits and inner hyphens, at most 63 characters.
    TemplateName, "template name", dns_label, pattern::LABEL, 63, "checkout"
}
name_type! {
    /// Something outside that the server works with, as its configuration names it: `corp`. Lower-case letters, digits
    /// and inner hyphens, at most 63 characters.
    IntegrationName, "name", dns_label, pattern::LABEL, 63, "corp"
}
name_type! {
    /// A repository as the agents' configuration names it: `erangel-ocean`. Lower-case letters,
    /// digits and inner `.`, `_`, `-`, no `..`, at most 100 characters.
    RepoName, "repo name", repo_slug, pattern::SLUG, 100, "eredar"
}
name_type! {
    /// A service the gateway calls: the `eredar` of its key `eredar_url`. A letter, then letters,
    /// digits and underscores, at most 64 characters.
    ServiceName, "service name", |text| identifier(text, 64), pattern::IDENTIFIER, 64, "eredar"
}
name_type! {
    /// An environment variable. A letter or underscore, then letters, digits and underscores.
    EnvName, "environment variable name", env_name, pattern::VARIABLE, 256, "LOG_LEVEL"
}
name_type! {
    /// A git branch without `refs/heads/`, by the rules of `git check-ref-format --branch`, and
    /// at most 244 bytes so that its loose ref fits in a file name.
    BranchName, "branch name", branch, pattern::BRANCH, 244, "feature/greeting"
}
name_type! {
    /// A git user name as typed at sign-in: any text without control characters or `:`, which
    /// basic authentication (RFC 7617) cannot carry, at most 128 bytes.
    UserName, "user name", user, pattern::USER, 128, "ada"
}
name_type! {
    /// Why a sandbox holds a route, in its owner's words: any text without control characters and without spaces
    /// around it, at most 200 characters.
    ClaimReason, "claim reason", claim_reason, pattern::LINE, 200, "load test of SHOP-12"
}
name_type! {
    /// What a token is for, in its user's words: any text without control characters and without spaces around it, at
    /// most 100 characters.
    TokenName, "token name", token_name, pattern::LINE, 100, "nightly build"
}
name_type! {
    /// What a request carries to be served by a sandbox: the sandbox's name, a hyphen and 8 to 16 lower-case letters
    /// and digits that nobody guesses by chance: `checkout-7f3k9q2m`. It selects routes and grants nothing, so it is
    /// no secret. [`SandboxKey::generate`] makes one.
    SandboxKey, "sandbox key", |text| sandbox_key(text).map(drop), pattern::KEY, 80, "checkout-7f3k9q2m"
}
name_type! {
    /// What something was done to, as a path of the API without its `/api/`: `sandboxes/pay/routes/eredar`. At most
    /// 400 characters, without control characters and empty parts.
    AuditSubject, "subject", audit_subject, pattern::SUBJECT, 400, "sandboxes/pay"
}
name_type! {
    /// A full git commit id: 40 or 64 lower-case hexadecimal digits.
    CommitId, "commit id", commit, pattern::COMMIT, 64, "cb696477e455e05dc2ff208f81af21f212dc0645"
}

impl UserName {
    /// Whether both name one person: git hosts do not tell `Ada` from `ada`. Letters beyond ASCII are told apart: some only
    /// look alike.
    pub fn is(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl CommitId {
    /// The first twelve digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl AuditSubject {
    fn of(parts: &[&str]) -> Self {
        // A user's name may have what is no part of a path.
        let parts: Vec<_> = parts.iter().map(|part| part.replace('/', "%2F")).collect();
        Self(parts.join("/"))
    }

    /// `users/ada`.
    pub fn user(user: &UserName) -> Self {
        Self::of(&["users", user.as_str()])
    }

    /// `sandboxes/pay`.
    pub fn sandbox(sandbox: &SandboxName) -> Self {
        Self::of(&["sandboxes", sandbox.as_str()])
    }

    /// `users/ada/tokens/0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e55`.
    pub fn token(user: &UserName, id: TokenId) -> Self {
        Self::of(&["users", user.as_str(), "tokens", &id.to_string()])
    }

    /// `users`: somebody whom the platform does not know.
    pub fn unknown_user() -> Self {
        Self::of(&["users"])
    }

    /// `agents/micro-92`.
    pub fn agent(agent: &AgentName) -> Self {
        Self::of(&["agents", agent.as_str()])
    }

    /// `environments/qa`.
    pub fn environment(environment: &EnvironmentName) -> Self {
        Self::of(&["environments", environment.as_str()])
    }

    /// `templates/checkout`.
    pub fn template(template: &TemplateName) -> Self {
        Self::of(&["templates", template.as_str()])
    }

    /// `sandboxes/pay/routes/eredar`.
    pub fn route(sandbox: &SandboxName, service: &ServiceName) -> Self {
        Self::of(&["sandboxes", sandbox.as_str(), "routes", service.as_str()])
    }

    /// `sandboxes/pay/repos/eredar`, or `repos/eredar` for a quick deploy.
    pub fn instance(key: &InstanceKey) -> Self {
        match &key.sandbox {
            Some(sandbox) => Self::of(&["sandboxes", sandbox.as_str(), "repos", key.repo.as_str()]),
            None => Self::of(&["repos", key.repo.as_str()]),
        }
    }
}

impl ServiceName {
    /// The key under which the gateway's configuration holds the service's URL: `<service>_url`.
    pub fn config_key(&self) -> String {
        format!("{}_url", self.0)
    }
}

impl SandboxKey {
    /// The characters of a key's random end: 32 that are hard to mistake for one another.
    const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";

    /// How many characters [`SandboxKey::generate`] adds to the name.
    const RANDOM: u32 = 8;

    /// A key of `sandbox` from 40 of the bits of `random`, which comes from a random generator:
    /// `SandboxKey::generate(&sandbox, rand::random())`.
    pub fn generate(sandbox: &SandboxName, random: u64) -> Self {
        let digit = |at| char::from(Self::ALPHABET[(random >> (5 * at)) as usize % Self::ALPHABET.len()]);
        let end: String = (0..Self::RANDOM).map(digit).collect();
        Self(format!("{sandbox}-{end}"))
    }

    /// The name of the sandbox whose key it is.
    pub fn sandbox(&self) -> SandboxName {
        SandboxName(sandbox_key(&self.0).unwrap_or_default().to_owned())
    }
}

/// The name in a sandbox's key.
fn sandbox_key(text: &str) -> Result<&str, &'static str> {
    let form = "write it as it was given: the sandbox's name, `-`, and 8 to 16 lower-case letters and digits";
    let (name, random) = text.rsplit_once('-').ok_or(form)?;
    let plain = random.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if dns_label(name).is_err() || !plain || !(8..=16).contains(&random.len()) {
        return Err(form);
    }
    Ok(name)
}

fn audit_subject(text: &str) -> Result<(), &'static str> {
    if text.chars().count() > 400 {
        Err("it is longer than 400 characters")
    } else if text.chars().any(char::is_control) {
        Err("control characters are not allowed")
    } else if text.split('/').any(str::is_empty) {
        Err("it must not be empty, start or end with `/` or contain `//`")
    } else {
        Ok(())
    }
}

fn claim_reason(text: &str) -> Result<(), &'static str> {
    match text.chars().count() {
        0 => Err("it is empty; leave it out instead"),
        201.. => Err("it is longer than 200 characters"),
        _ => plain_line(text),
    }
}

fn token_name(text: &str) -> Result<(), &'static str> {
    match text.chars().count() {
        0 => Err("it is empty"),
        101.. => Err("it is longer than 100 characters"),
        _ => plain_line(text),
    }
}

fn plain_line(text: &str) -> Result<(), &'static str> {
    if text.chars().any(char::is_control) {
        Err("control characters are not allowed")
    } else if text.trim() != text {
        Err("spaces around it are not allowed")
    } else {
        Ok(())
    }
}

fn dns_label(text: &str) -> Result<(), &'static str> {
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let bytes = text.as_bytes();
    if bytes.len() > 63 {
        Err("it is longer than 63 characters")
    } else if !edge(bytes.first().copied()) || !edge(bytes.last().copied()) {
        Err("it must start and end with a lower-case letter or a digit")
    } else if bytes.iter().all(|c| edge(Some(*c)) || *c == b'-') {
        Ok(())
    } else {
        Err("only lower-case letters, digits and hyphens are allowed")
    }
}

fn repo_slug(text: &str) -> Result<(), &'static str> {
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let bytes = text.as_bytes();
    if bytes.len() > 100 {
        Err("it is longer than 100 characters")
    } else if !edge(bytes.first().copied()) || !edge(bytes.last().copied()) {
        Err("it must start and end with a lower-case letter or a digit")
    } else if text.contains("..") {
        Err("`..` is not allowed")
    } else if bytes.iter().all(|c| edge(Some(*c)) || b".-_".contains(c)) {
        Ok(())
    } else {
        Err("only lower-case letters, digits, `.`, `_` and `-` are allowed")
    }
}

fn identifier(text: &str, max: usize) -> Result<(), &'static str> {
    if text.len() > max {
        Err("it is too long")
    } else if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        Err("it must start with a letter")
    } else if text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') {
        Ok(())
    } else {
        Err("only letters, digits and underscores are allowed")
    }
}

fn env_name(text: &str) -> Result<(), &'static str> {
    if text.len() > 256 {
        Err("it is longer than 256 characters")
    } else if !text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        Err("it must start with a letter or an underscore")
    } else if text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') {
        Ok(())
    } else {
        Err("only letters, digits and underscores are allowed")
    }
}

fn branch(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        Err("it is empty")
    } else if text.len() > 244 {
        Err("it is longer than 244 bytes")
    } else if text.starts_with('-') {
        Err("it must not start with `-`")
    } else if text == "@" || text == "HEAD" {
        Err("it is reserved by git")
    } else if text.chars().any(|c| c.is_control() || c == ' ') {
        Err("spaces and control characters are not allowed")
    } else if text.contains(['~', '^', ':', '?', '*', '[', '\\']) {
        Err("the characters ~ ^ : ? * [ \\ are not allowed")
    } else if text.contains("..") || text.contains("@{") {
        Err("`..` and `@{` are not allowed")
    } else if text.ends_with('.') {
        Err("it must not end with `.`")
    } else if text.split('/').any(|part| part.is_empty()) {
        Err("it must not start or end with `/` or contain `//`")
    } else if text.split('/').any(|part| part.starts_with('.') || part.ends_with(".lock")) {
        Err("no part may start with `.` or end with `.lock`")
    } else {
        Ok(())
    }
}

fn user(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        Err("it is empty")
    } else if text.len() > 128 {
        Err("it is longer than 128 bytes")
    } else if text.chars().any(|c| c.is_control() || c == ':') {
        Err("control characters and `:` are not allowed")
    } else {
        Ok(())
    }
}

fn commit(text: &str) -> Result<(), &'static str> {
    let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    if matches!(text.len(), 40 | 64) && text.bytes().all(hex) {
        Ok(())
    } else {
        Err("it must be 40 or 64 lower-case hexadecimal digits")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn branch_names_that_git_or_a_shell_would_misread_are_refused() {
        for text in [
            "",
            "-x",
            "--upload-pack=x",
            "a..b",
            "a b",
            "a\0b",
            "a\nb",
            "a\u{7f}",
            "a~1",
            "a^",
            "a:b",
            "a?",
            "*",
            "a[",
            "a\\b",
            "/a",
            "a/",
            "a//b",
            ".a",
            "a/.b",
            "a.lock",
            "a.lock/b",
            "a.",
            "@",
            "a@{1}",
            "HEAD",
            "+a:b",
            &"x".repeat(300),
        ] {
            assert!(BranchName::new(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn branch_names_people_really_use_are_accepted() {
        for text in ["main", "feature/SHOP-12_fix", "release/1.2", "user@home", "ünï/çödé", "a-b", "+a"] {
            assert!(BranchName::new(text).is_ok(), "{text:?} was refused");
        }
    }

    #[test]
    fn names_used_in_paths_refuse_everything_but_plain_characters() {
        for text in ["", ".", "..", "a/b", "a..b", "-a", "a-", "A", "a b", "a\0", "a\u{301}", &"x".repeat(300)] {
            assert!(RepoName::new(text).is_err(), "{text:?} was accepted as a repo");
            assert!(SandboxName::new(text).is_err(), "{text:?} was accepted as a sandbox");
        }
        assert!(RepoName::new("erangel.ocean_v2-x").is_ok());
    }

    #[test]
    fn sandbox_keys_name_their_sandbox_and_nothing_else_passes_for_one() {
        let key = SandboxKey::new("check-out-7f3k9q2m").unwrap();
        assert_eq!(key.sandbox().as_str(), "check-out");
        for text in
            ["", "7f3k9q2m", "-7f3k9q2m", "a-7f3k9q2", "a-7F3K9Q2M", "a--7f3k9q2m", "a-7f3k9q2m\n", "a-7f3k9q2é"]
        {
            assert!(SandboxKey::new(text).is_err(), "{text:?} was accepted");
        }
        let longest = SandboxName::new("x".repeat(63)).unwrap();
        for random in [0, 1, u64::MAX] {
            let key = SandboxKey::generate(&longest, random);
            assert_eq!(SandboxKey::new(key.as_str()).unwrap().sandbox(), longest);
        }
        assert_ne!(SandboxKey::generate(&longest, 1), SandboxKey::generate(&longest, 2));
    }

    #[test]
    fn subjects_are_paths_of_the_api() {
        let user = UserName::new("a/b c").unwrap();
        assert_eq!(AuditSubject::user(&user).as_str(), "users/a%2Fb c");
        assert_eq!(AuditSubject::new(AuditSubject::user(&user).as_str()), Ok(AuditSubject::user(&user)));
        let key = InstanceKey::in_sandbox("pay".parse().unwrap(), "eredar".parse().unwrap());
        assert_eq!(AuditSubject::instance(&key).as_str(), "sandboxes/pay/repos/eredar");
        for text in ["", "/", "a/", "/a", "a//b", "a\nb", &"x".repeat(401)] {
            assert!(AuditSubject::new(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn reasons_are_short_and_fit_on_a_line() {
        assert!(ClaimReason::new("load test of SHOP-12, until Friday").is_ok());
        for text in ["", " a", "a ", "a\nb", "a\0", &"x".repeat(201)] {
            assert!(ClaimReason::new(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn an_error_names_the_kind_the_text_and_the_rule() {
        let error = BranchName::new("a b").unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"a b\" is not a valid branch name: spaces and control characters are not allowed"
        );
    }

    #[test]
    fn deserialising_checks_the_rules_too() {
        assert!(serde_json::from_str::<BranchName>("\"../x\"").is_err());
        assert_eq!(serde_json::to_string(&BranchName::new("a/b").unwrap()).unwrap(), "\"a/b\"");
    }

    proptest! {
        #[test]
        fn no_accepted_name_can_climb_out_of_a_directory_or_pass_for_an_option(text in "\\PC{0,40}") {
            if let Ok(name) = RepoName::new(text.clone()) {
                prop_assert!(!name.as_str().contains(['/', '\\', '\0']) && name.as_str() != "..");
            }
            if let Ok(name) = BranchName::new(text) {
                prop_assert!(!name.as_str().starts_with('-') && !name.as_str().split('/').any(|p| p == ".."));
            }
        }
    }
}
