//! Why a request reaches what it reaches.

use serde::{Deserialize, Serialize};

use super::{
    names::{SandboxKey, SandboxName, ServiceName},
    route::{RouteOrigin, RouteTable},
};

/// The header that carries a sandbox's key.
pub const KEY_HEADER: &str = "X-SDP-Sandbox";

/// The cookie, and the member of the W3C `baggage` header, that carries a sandbox's key.
pub const KEY_NAME: &str = "sdp-sandbox";

/// The longest text that can be a key, in bytes.
pub const MAX_KEY: usize = 80;

/// How much of a `baggage` header is read, in bytes: the least that the W3C wants to be passed on.
pub const MAX_BAGGAGE: usize = 8192;

/// A request as far as it matters for its route, and the service in question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteQuestion {
    /// The service.
    pub service: ServiceName,
    /// Its `X-SDP-Sandbox` header, or just a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Its `Cookie` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// Its `baggage` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baggage: Option<String>,
}

/// What a request can carry a key in. The first of these that is there counts, also when its key is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// The header `X-SDP-Sandbox`.
    Header,
    /// The cookie `sdp-sandbox`.
    Cookie,
    /// The member `sdp-sandbox` of the header `baggage`.
    Baggage,
}

/// Which of a gateway's rules decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ServedBy {
    /// The routes of the sandbox whose key the request carries.
    Sandbox,
    /// An override for every request.
    Override,
    /// The default of the gateway's branch.
    Default,
    /// The gateway's configuration has no such service.
    Nothing,
}

/// Whether a target answers, seen from the gateway's machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum TargetAnswer {
    /// It answered HTTP with this status.
    Status(u16),
    /// It accepts connections.
    Connected,
    /// It does not, for this reason.
    Silent(String),
}

/// The answer to a [`RouteQuestion`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Explanation {
    /// The service.
    pub service: ServiceName,
    /// The key that the request carries, as far as it can be one: cut to [`MAX_KEY`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<Carrier>,
    /// The sandbox whose key it is; none when nobody has that key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxName>,
    /// What decides.
    pub served_by: ServedBy,
    /// Where the request is sent: a URL, or the PHP source of an expression that the gateway was not seen to evaluate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Whether `target` is PHP source rather than a URL.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expression: bool,
    /// Whether the target answers, where it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<TargetAnswer>,
    /// How it comes to that, in sentences, the most telling last.
    pub because: Vec<String>,
}

impl RouteQuestion {
    /// The key that the request carries, as text that need not be a valid key, and where.
    pub fn key(&self) -> Option<(String, Carrier)> {
        let there = |text: &str| !text.is_empty();
        let header = self.header.as_deref().map(|text| trimmed(text).to_owned()).filter(|text| there(text));
        let cookie = || {
            let member = self.cookie.as_deref()?.split(';').find_map(member)?;
            Some(decoded(&member.replace('+', " "))).filter(|text| there(text))
        };
        let baggage = || {
            let baggage = self.baggage.as_deref()?.as_bytes();
            let baggage = String::from_utf8_lossy(baggage.get(..MAX_BAGGAGE).unwrap_or(baggage)).into_owned();
            let value = baggage.split(',').find_map(|part| member(part.split(';').next()?).map(decoded))?;
            Some(value).filter(|text| there(text))
        };
        header
            .map(|key| (key, Carrier::Header))
            .or_else(|| cookie().map(|key| (key, Carrier::Cookie)))
            .or_else(|| baggage().map(|key| (key, Carrier::Baggage)))
    }
}

fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// The value of `sdp-sandbox=value`.
fn member(text: &str) -> Option<&str> {
    let (name, value) = text.split_once('=')?;
    (trimmed(name) == KEY_NAME).then(|| trimmed(value))
}

/// With percent-encoding undone. What is no encoding stays.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Explanation {
    /// Answers `question` from a gateway's table. Asks no target.
    pub fn of(table: &RouteTable, question: &RouteQuestion) -> Self {
        let mut because = Vec::new();
        let seen = question.key();
        let sandbox = key_owner(table, seen.as_ref(), &mut because);
        let mut answer = Self {
            service: question.service.clone(),
            carrier: seen.as_ref().map(|(_, carrier)| *carrier),
            key: seen.map(|(key, _)| cut(key)),
            sandbox: sandbox.cloned(),
            served_by: ServedBy::Nothing,
            target: None,
            expression: false,
            answer: None,
            because,
        };
        answer.decide(table);
        answer
    }

    fn decide(&mut self, table: &RouteTable) {
        let service = &self.service;
        let Some(route) = table.get(service) else {
            let known: Vec<_> = table.routes.iter().map(|route| route.service.as_str()).collect();
            self.because.push(format!("the gateway has no service `{service}`; it has: {}", known.join(", ")));
            return;
        };
        if let Some(sandbox) = &self.sandbox {
            let own = table.requests.get(sandbox).and_then(|routes| routes.services.get(service));
            match (own, table.not_routable.get(service)) {
                (Some(url), None) => {
                    self.served_by = ServedBy::Sandbox;
                    self.target = Some(url.to_string());
                    self.because.push(format!("sandbox `{sandbox}` sends `{service}` there"));
                    return;
                }
                (Some(_), Some(reason)) => {
                    self.because.push(format!("`{service}` cannot be routed per request: {reason}"));
                }
                (None, _) => self.because.push(format!("sandbox `{sandbox}` has no route of its own for `{service}`")),
            }
        }
        let expression = route.effective.is_none() && route.expression;
        self.target = Some(route.effective.clone().unwrap_or_else(|| route.value.clone()));
        self.expression = expression;
        let owner = route.owner.as_ref().map(|owner| format!(" by sandbox `{owner}`")).unwrap_or_default();
        let (served_by, sentence) = match route.origin {
            RouteOrigin::Ocp => (ServedBy::Default, "it is the default of the gateway's branch".into()),
            RouteOrigin::Drifted => {
                (ServedBy::Default, "the gateway's file was edited by hand, and that is what it says".into())
            }
            RouteOrigin::Sandbox | RouteOrigin::Custom => {
                (ServedBy::Override, format!("it is overridden{owner} for every request"))
            }
        };
        self.served_by = served_by;
        self.because.push(sentence);
    }
}

/// The sandbox that has the key, and why there is none.
fn key_owner<'a>(
    table: &'a RouteTable,
    seen: Option<&(String, Carrier)>,
    because: &mut Vec<String>,
) -> Option<&'a SandboxName> {
    let Some((text, carrier)) = seen else {
        because.push(format!(
            "the request carries no key: no header {KEY_HEADER}, no cookie {KEY_NAME}, no member {KEY_NAME} of baggage"
        ));
        return None;
    };
    let carrier = match carrier {
        Carrier::Header => format!("the header {KEY_HEADER}"),
        Carrier::Cookie => format!("the cookie {KEY_NAME}"),
        Carrier::Baggage => format!("the member {KEY_NAME} of the header baggage"),
    };
    if !table.per_request {
        because.push(format!("the request carries a key in {carrier}, but this gateway does not route per request"));
        return None;
    }
    let owner = table.requests.iter().find(|(_, routes)| routes.key.as_str() == text).map(|(sandbox, _)| sandbox);
    because.push(match (owner, SandboxKey::new(text.as_str())) {
        (Some(sandbox), _) => format!("{carrier} has the key of sandbox `{sandbox}`"),
        (None, Ok(key)) if table.requests.contains_key(&key.sandbox()) => {
            format!("{carrier} has a key of sandbox `{}` that is not its present one; copy it again", key.sandbox())
        }
        (None, Ok(key)) => format!("{carrier} names sandbox `{}`, which has no routes per request here", key.sandbox()),
        (None, Err(_)) => format!("{carrier} has something that is no key; copy the sandbox's key again"),
    });
    owner
}

/// As much of `text` as could be a key.
fn cut(mut text: String) -> String {
    let end = (0..=MAX_KEY.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(header: Option<&str>, cookie: Option<&str>, baggage: Option<&str>) -> RouteQuestion {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        RouteQuestion {
            service: "eredar".parse().unwrap(),
            header: owned(header),
            cookie: owned(cookie),
            baggage: owned(baggage),
        }
    }

    #[test]
    fn the_first_carrier_that_has_a_key_counts() {
        let key = |header, cookie, baggage| question(header, cookie, baggage).key().unzip();
        let all = (Some(" h "), Some("a=b; sdp-sandbox=c"), Some("x=1,sdp-sandbox=b;p=1"));
        assert_eq!(key(all.0, all.1, all.2), (Some("h".into()), Some(Carrier::Header)));
        assert_eq!(key(Some(""), all.1, all.2), (Some("c".into()), Some(Carrier::Cookie)));
        assert_eq!(key(None, Some("a=b"), all.2), (Some("b".into()), Some(Carrier::Baggage)));
        assert_eq!(key(None, None, Some("sdp-sandbox=%61%2db%zz")), (Some("a-b%zz".into()), Some(Carrier::Baggage)));
        assert_eq!(key(None, None, Some("xsdp-sandbox=a, sdp-sandbox")), (None, None));
        let far = format!("{}, sdp-sandbox=b", "x".repeat(MAX_BAGGAGE));
        assert_eq!(key(None, None, Some(&far)), (None, None));
    }

    #[test]
    fn a_long_key_is_cut_and_never_in_the_middle_of_a_letter() {
        let long = "é".repeat(5000);
        let answer = Explanation::of(&RouteTable::default(), &question(Some(&long), None, None));
        assert_eq!(answer.key.unwrap().len(), MAX_KEY);
    }
}
