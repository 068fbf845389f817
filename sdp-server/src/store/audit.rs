//! The audit: who did what, when and from where.

use std::net::IpAddr;

use jiff::Timestamp;
use rusqlite::{Connection, Row, ToSql, params};
use sdp_core::{
    AuditSubject, DeploymentId, UserName,
    api::{
        Page,
        audit::{AuditAction, AuditEntry, AuditFilter},
    },
};

use super::{
    Store, StoreError,
    values::{micros, optional_text, text, time},
};

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 500;

/// Something that was done, on its way into the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// When.
    pub at: Timestamp,
    /// Who; none when the platform did it of itself.
    pub user: Option<UserName>,
    /// From which address.
    pub address: Option<IpAddr>,
    /// What.
    pub action: AuditAction,
    /// To what.
    pub subject: AuditSubject,
    /// The deployment that it was done to, or that it began.
    pub deployment: Option<DeploymentId>,
    /// More of it, in a sentence without secrets.
    pub detail: Option<String>,
}

impl Deed {
    /// Something that the platform does of itself, now.
    pub fn of_the_platform(action: AuditAction, subject: AuditSubject) -> Self {
        let at = Timestamp::now();
        Self { at, user: None, address: None, action, subject, deployment: None, detail: None }
    }

    /// Names the deployment.
    pub fn deployment(mut self, id: DeploymentId) -> Self {
        self.deployment = Some(id);
        self
    }

    /// Says more of it. No secrets.
    pub fn detail(mut self, sentence: impl Into<String>) -> Self {
        self.detail = Some(sentence.into());
        self
    }
}

impl Store {
    /// Keeps what was done, in the order given.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn append_audit(&self, deeds: Vec<Deed>) -> Result<(), StoreError> {
        self.writer.write(move |connection| deeds.iter().try_for_each(|deed| append(connection, deed))).await
    }

    /// One page of the audit, newest first. A limit out of range is taken to the nearest allowed.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<Page<AuditEntry>, StoreError> {
        let filter = filter.clone();
        self.readers.read(move |connection| page(connection, &filter)).await
    }
}

/// Keeps what was done, in the transaction in which it is done where that is the caller's.
pub(super) fn append(connection: &Connection, deed: &Deed) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO audit (at, user, address, action, subject, deployment, detail)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            micros(deed.at),
            deed.user.as_ref().map(UserName::as_str),
            deed.address.map(|address| address.to_string()),
            deed.action.as_str(),
            deed.subject.as_str(),
            deed.deployment.map(|id| id.to_string()),
            deed.detail,
        ])?;
    Ok(())
}

/// A condition, the values it needs, and whether it was asked for.
type Condition<'a> = (&'static str, &'a [(&'static str, &'a dyn ToSql)], bool);

fn page(connection: &Connection, filter: &AuditFilter) -> Result<Page<AuditEntry>, StoreError> {
    let limit = filter.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let before = filter.before.map(|id| i64::try_from(id).unwrap_or(i64::MAX));
    let user = filter.user.as_ref().map(UserName::as_str);
    let action = filter.action.map(AuditAction::as_str);
    let subject = filter.subject.as_ref().map(AuditSubject::as_str);
    // What is in it begins with its name and `/`; `0` is the character after `/`.
    let (inside, after) = (subject.map(|subject| format!("{subject}/")), subject.map(|subject| format!("{subject}0")));
    let wanted: [Condition<'_>; 4] = [
        ("user = :user", &[(":user", &user)], user.is_some()),
        ("action = :action", &[(":action", &action)], action.is_some()),
        (
            "(subject = :subject OR subject >= :inside AND subject < :after OR deployment = :subject)",
            &[(":subject", &subject), (":inside", &inside), (":after", &after)],
            subject.is_some(),
        ),
        ("id < :before", &[(":before", &before)], before.is_some()),
    ];
    let (mut conditions, mut values) = (String::from("TRUE"), Vec::<(&str, &dyn ToSql)>::new());
    for (condition, parameters, _) in wanted.iter().filter(|(.., asked)| *asked) {
        conditions.push_str(" AND ");
        conditions.push_str(condition);
        values.extend(parameters.iter());
    }
    let one_more = limit + 1;
    values.push((":limit", &one_more));
    let query = format!("SELECT * FROM audit WHERE {conditions} ORDER BY id DESC LIMIT :limit");
    let mut statement = connection.prepare_cached(&query)?;
    let mut rows = statement.query(&*values)?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        items.push(from_row(row)?);
    }
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = items.last().filter(|_| more).map(|last: &AuditEntry| last.id.to_string());
    Ok(Page { items, next })
}

fn from_row(row: &Row<'_>) -> Result<AuditEntry, StoreError> {
    let id: i64 = row.get("id")?;
    Ok(AuditEntry {
        id: u64::try_from(id).unwrap_or_default(),
        at: time(row, "at")?,
        user: optional_text(row, "user")?,
        address: optional_text(row, "address")?,
        action: text(row, "action")?,
        subject: text(row, "subject")?,
        deployment: optional_text(row, "deployment")?,
        detail: row.get("detail")?,
    })
}
