//! The few calls of Bitbucket's REST API that are made.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{Bitbucket, BitbucketKind};
use crate::{
    outgoing::{Answer, Outgoing},
    queue::Failure,
};

/// One repository's API.
#[derive(Debug)]
pub(super) struct Rest<'a> {
    outgoing: &'a Outgoing,
    kind: BitbucketKind,
    token: &'a SecretString,
    /// The repository.
    base: Url,
}

/// A build's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    /// Which of a commit's builds it is: at most 40 characters.
    pub(super) key: String,
    /// `INPROGRESS`, `SUCCESSFUL`, `FAILED`.
    pub(super) state: &'static str,
    /// A name for people.
    pub(super) name: String,
    /// In a sentence: at most 255 characters.
    pub(super) description: String,
    /// Where there is more.
    pub(super) url: String,
}

impl Status {
    /// As both kinds take it.
    pub(super) fn body(&self) -> Value {
        let Self { key, state, name, description, url } = self;
        json!({ "key": key, "state": state, "name": name, "description": description, "url": url })
    }
}

#[derive(Deserialize)]
struct Comment {
    id: u64,
    #[serde(default)]
    version: u64,
    /// Data Center's.
    #[serde(default)]
    text: String,
    /// Cloud's.
    #[serde(default)]
    content: Content,
    #[serde(default)]
    deleted: bool,
}

#[derive(Default, Deserialize)]
struct Content {
    #[serde(default)]
    raw: String,
}

#[derive(Deserialize)]
struct Page {
    values: Vec<Value>,
}

impl<'a> Rest<'a> {
    /// The API of a repository, `workspace/slug` or `PROJECT/slug`; none where there is no token.
    pub(super) fn new(outgoing: &'a Outgoing, bitbucket: &'a Bitbucket, repository: &str) -> Option<Self> {
        let (owner, slug) = repository.split_once('/')?;
        let kind = bitbucket.config.kind;
        let base = bitbucket.config.api()?;
        let parts: &[&str] = match kind {
            BitbucketKind::Cloud => &["2.0", "repositories", owner, slug],
            BitbucketKind::DataCenter => &["rest", "api", "latest", "projects", owner, "repos", slug],
        };
        let base = below(&base, parts)?;
        Some(Self { outgoing, kind, token: bitbucket.token.as_ref()?, base })
    }

    /// Sets the status of a build of a commit.
    pub(super) async fn set_status(&self, commit: &str, status: &Value) -> Result<(), Failure> {
        let parts: &[&str] = match self.kind {
            BitbucketKind::Cloud => &["commit", commit, "statuses", "build"],
            BitbucketKind::DataCenter => &["commits", commit, "builds"],
        };
        let answer = self.call(Method::POST, parts, &[], Some(status)).await?;
        answer.success("the build status").map(drop)
    }

    /// Puts a comment on a pull request, in the place of the one known or found by how it begins. Gives its id.
    pub(super) async fn comment(
        &self,
        number: u64,
        known: Option<&str>,
        text: &str,
        beginning: &str,
    ) -> Result<String, Failure> {
        let number = number.to_string();
        let earlier = match known {
            Some(id) => Some(id.to_owned()),
            // It may have been posted and not written down.
            None => self.find(&number, beginning).await?,
        };
        if let Some(id) = earlier {
            if self.replace(&number, &id, text).await? {
                return Ok(id);
            }
            tracing::debug!(comment = id, "the comment is gone, or somebody else's: there will be another");
        }
        let body = self.comment_body(text);
        let answer = self.call(Method::POST, &[self.pulls(), &number, "comments"], &[], Some(&body)).await?;
        let posted: Comment = read(&answer.success("the comment")?)?;
        Ok(posted.id.to_string())
    }

    async fn find(&self, number: &str, beginning: &str) -> Result<Option<String>, Failure> {
        let (parts, query): (&[&str], _) = match self.kind {
            BitbucketKind::Cloud => (&[self.pulls(), number, "comments"], [("pagelen", "100")]),
            BitbucketKind::DataCenter => (&[self.pulls(), number, "activities"], [("limit", "100")]),
        };
        let answer = self.call(Method::GET, parts, &query, None).await?;
        let page: Page = read(&answer.success("the list of comments")?)?;
        let comments = page.values.into_iter().filter_map(|value| {
            let comment = match self.kind {
                BitbucketKind::Cloud => value,
                BitbucketKind::DataCenter => value.get("comment")?.clone(),
            };
            serde_json::from_value::<Comment>(comment).ok()
        });
        let mut own = comments.filter(|comment| {
            !comment.deleted && (comment.text.starts_with(beginning) || comment.content.raw.starts_with(beginning))
        });
        Ok(own.next().map(|comment| comment.id.to_string()))
    }

    /// False when there is no such comment of ours.
    async fn replace(&self, number: &str, id: &str, text: &str) -> Result<bool, Failure> {
        let parts = [self.pulls(), number, "comments", id];
        let gone =
            |answer: &Answer| matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::FORBIDDEN);
        let mut body = self.comment_body(text);
        if self.kind == BitbucketKind::DataCenter {
            let answer = self.call(Method::GET, &parts, &[], None).await?;
            if gone(&answer) {
                return Ok(false);
            }
            let present: Comment = read(&answer.success("the comment")?)?;
            body["version"] = present.version.into();
        }
        let answer = self.call(Method::PUT, &parts, &[], Some(&body)).await?;
        if gone(&answer) {
            return Ok(false);
        }
        answer.success("the comment").map(|_| true)
    }

    fn pulls(&self) -> &'static str {
        match self.kind {
            BitbucketKind::Cloud => "pullrequests",
            BitbucketKind::DataCenter => "pull-requests",
        }
    }

    fn comment_body(&self, text: &str) -> Value {
        match self.kind {
            BitbucketKind::Cloud => json!({ "content": { "raw": text } }),
            BitbucketKind::DataCenter => json!({ "text": text }),
        }
    }

    async fn call(
        &self,
        method: Method,
        parts: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let cannot = || Failure::never("the configured address has no paths");
        let mut url = below(&self.base, parts).ok_or_else(cannot)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let bearer = HeaderValue::from_str(&format!("Bearer {}", self.token.expose_secret()));
        let mut bearer = bearer.map_err(|_| Failure::never("the access token has characters that no header takes"))?;
        bearer.set_sensitive(true);
        let json = HeaderValue::from_static("application/json");
        let headers = [(header::AUTHORIZATION, bearer), (header::CONTENT_TYPE, json.clone()), (header::ACCEPT, json)];
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        self.outgoing.send(method, &url, &headers, body).await
    }
}

/// A path below a URL, each part escaped.
fn below(base: &Url, parts: &[&str]) -> Option<Url> {
    let mut url = base.clone();
    url.path_segments_mut().ok()?.pop_if_empty().extend(parts);
    Some(url)
}

fn read<T: for<'a> Deserialize<'a>>(answer: &Answer) -> Result<T, Failure> {
    serde_json::from_slice(&answer.body)
        .map_err(|error| Failure::again(format!("Bitbucket's answer is no such thing: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped_and_go_below_the_address() {
        let base = Url::parse("https://bitbucket.example/ctx/").unwrap();
        let url = below(&base, &["projects", "~ada", "a/b ?#", "x"]).unwrap();
        assert_eq!(url.as_str(), "https://bitbucket.example/ctx/projects/~ada/a%2Fb%20%3F%23/x");
    }
}
