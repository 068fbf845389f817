//! Who did what.

use futures_util::{StreamExt, stream::BoxStream};

use super::{Client, ClientError, call::Call, paging};
use crate::api::{
    Page,
    audit::{AuditEntry, AuditFilter},
};

impl Client {
    /// One page of the audit, the newest first.
    ///
    /// # Errors
    /// As every request.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<Page<AuditEntry>, ClientError> {
        self.json(Call::get("/api/audit").query(filter)).await
    }

    /// Every entry that the filter lets through, the newest first, page by page; its `limit` is the size of a page.
    pub fn all_audit(&self, filter: AuditFilter) -> BoxStream<'static, Result<AuditEntry, ClientError>> {
        let client = self.clone();
        let ask = move |filter| {
            let client = client.clone();
            async move { client.audit(&filter).await }
        };
        paging::items(filter, ask).boxed()
    }
}
