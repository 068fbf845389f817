//! Who did what, when and from where.

use axum::extract::State;
use sdp_core::{
    api::{
        Page,
        audit::{AuditAction, AuditEntry, AuditFilter},
    },
    model::names::AuditSubject,
    problem::chain,
};

use super::{Json, MAX_LIMIT, Query, check_limit};
use crate::{ApiError, AppState, auth::SignedIn, store::Deed};

pub(super) async fn list(
    State(state): State<AppState>,
    Query(filter): Query<AuditFilter>,
) -> Result<Json<Page<AuditEntry>>, ApiError> {
    check_limit(filter.limit, MAX_LIMIT)?;
    Ok(Json(state.store().audit(&filter).await?))
}

impl SignedIn {
    /// Something that this person does now.
    pub(crate) fn deed(&self, action: AuditAction, subject: AuditSubject) -> Deed {
        let deed = Deed::of_the_platform(action, subject);
        Deed { user: Some(self.user().clone()), address: Some(self.address), ..deed }
    }
}

impl AppState {
    /// Writes down what was done. It is done: that it could not be written down is the operator's trouble,
    /// not that of who did it.
    pub(crate) async fn audit(&self, deeds: Vec<Deed>) {
        if deeds.is_empty() {
            return;
        }
        if let Err(error) = self.store().append_audit(deeds.clone()).await {
            for Deed { user, address, action, subject, .. } in deeds {
                let (user, address) = (user.map(String::from), address.map(|address| address.to_string()));
                tracing::error!(error = chain(&error), user, address, %action, %subject, "not written into the audit");
            }
        }
    }
}
