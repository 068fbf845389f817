//! Long lists, one item after another.

use futures_util::{Stream, StreamExt, stream};

use super::ClientError;
use crate::api::{DeploymentFilter, Page, SandboxFilter, audit::AuditFilter};

/// A filter that says where in a list to go on.
pub(super) trait Filter: Clone + Send + 'static {
    /// Goes on where a page said; false when that is no such place.
    fn go_on(&mut self, next: &str) -> bool;
}

impl Filter for DeploymentFilter {
    fn go_on(&mut self, next: &str) -> bool {
        self.before = next.parse().ok();
        self.before.is_some()
    }
}

impl Filter for SandboxFilter {
    fn go_on(&mut self, next: &str) -> bool {
        self.after = next.parse().ok();
        self.after.is_some()
    }
}

impl Filter for AuditFilter {
    fn go_on(&mut self, next: &str) -> bool {
        self.before = next.parse().ok();
        self.before.is_some()
    }
}

/// Everything that a filter lets through, a page asked for when it is needed.
pub(super) fn items<F, T, Fut>(
    filter: F,
    ask: impl Fn(F) -> Fut + Send + 'static,
) -> impl Stream<Item = Result<T, ClientError>> + Send + 'static
where
    F: Filter,
    T: Send + 'static,
    Fut: Future<Output = Result<Page<T>, ClientError>> + Send,
{
    let pages = stream::try_unfold((Some(filter), ask), |(filter, ask)| async {
        let Some(mut filter) = filter else { return Ok::<_, ClientError>(None) };
        let page = ask(filter.clone()).await?;
        let more = page.next.is_some_and(|next| filter.go_on(&next)).then_some(filter);
        Ok(Some((page.items, (more, ask))))
    });
    pages.flat_map(|page| match page {
        Ok(items) => stream::iter(items.into_iter().map(Ok).collect::<Vec<_>>()),
        Err(error) => stream::iter(vec![Err(error)]),
    })
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn pages_follow_one_another_until_there_is_no_next() {
        let ask = |filter: AuditFilter| async move {
            let from = filter.before.unwrap_or(7);
            let items: Vec<u64> = (1..from).rev().take(3).collect();
            let next = items.last().filter(|last| **last > 1).map(ToString::to_string);
            Ok(Page { items, next })
        };
        let all: Vec<u64> = items(AuditFilter::default(), ask).try_collect().await.unwrap();
        assert_eq!(all, [6, 5, 4, 3, 2, 1]);
    }

    #[tokio::test]
    async fn an_error_ends_the_list() {
        let ask = |filter: AuditFilter| async move {
            match filter.before {
                None => Ok(Page { items: vec![9], next: Some("9".into()) }),
                Some(_) => Err(ClientError::InvalidToken),
            }
        };
        let all: Vec<_> = items(AuditFilter::default(), ask).collect().await;
        assert!(matches!(all[..], [Ok(9), Err(ClientError::InvalidToken)]), "{all:?}");
    }
}
