//! Lists in pages.

use garde::Validate;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which page is asked for.
#[derive(Debug, Clone, Copy, Default, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// From 1.
    #[garde(range(min = 1, max = 1_000_000))]
    #[param(default = 1, minimum = 1, maximum = 1_000_000, nullable = false)]
    page: Option<u32>,
    /// At most 100.
    #[garde(range(min = 1, max = 100))]
    #[param(default = 20, minimum = 1, maximum = 100, nullable = false)]
    per_page: Option<u32>,
}

impl PageQuery {
    #[must_use]
    pub const fn page(&self) -> u32 {
        match self.page {
            Some(page) => page,
            None => 1,
        }
    }

    #[must_use]
    pub const fn per_page(&self) -> u32 {
        match self.per_page {
            Some(per_page) => per_page,
            None => 20,
        }
    }

    /// How many rows come before the page.
    #[must_use]
    pub fn offset(&self) -> i64 {
        i64::from(self.page() - 1) * i64::from(self.per_page())
    }

    #[must_use]
    pub fn limit(&self) -> i64 {
        self.per_page().into()
    }
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    pub data: Vec<T>,
    pub meta: PageMeta,
    pub links: PageLinks,
}

#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct PageMeta {
    /// How many there are, over all pages.
    #[schema(example = 41)]
    total: u64,
    #[schema(example = 2)]
    page: u32,
    #[schema(example = 20)]
    per_page: u32,
    #[schema(example = 3)]
    total_pages: u64,
}

/// The same list on this page and its neighbours.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct PageLinks {
    #[serde(rename = "self")]
    #[schema(example = "/api/v1/servers?page=2&per_page=20")]
    this: String,
    #[schema(example = "/api/v1/servers?page=3&per_page=20")]
    next: Option<String>,
    #[schema(example = "/api/v1/servers?page=1&per_page=20")]
    prev: Option<String>,
}

impl<T> Page<T> {
    /// `path` and `query` are the request's own.
    #[must_use]
    pub fn new(data: Vec<T>, total: u64, asked: PageQuery, path: &str, query: &str) -> Self {
        let (page, per_page) = (asked.page(), asked.per_page());
        Self {
            data,
            meta: PageMeta {
                total,
                page,
                per_page,
                total_pages: total.div_ceil(per_page.into()),
            },
            links: PageLinks::new(path, query, page, per_page, total),
        }
    }
}

impl PageLinks {
    #[must_use]
    pub fn new(path: &str, query: &str, page: u32, per_page: u32, total: u64) -> Self {
        let to = |page: u32| {
            let kept = query.split('&').filter(|pair| {
                !pair.is_empty() && !pair.starts_with("page=") && !pair.starts_with("per_page=")
            });
            let paging = [format!("page={page}"), format!("per_page={per_page}")];
            let pairs: Vec<&str> = kept.chain(paging.iter().map(String::as_str)).collect();
            format!("{path}?{}", pairs.join("&"))
        };
        let more = u64::from(page) * u64::from(per_page) < total;
        Self {
            this: to(page),
            next: more.then(|| to(page + 1)),
            prev: (page > 1).then(|| to(page - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::only_page(1, 20, 3, None, None)]
    #[case::first(1, 2, 3, Some("/s?tier=1&page=2&per_page=2"), None)]
    #[case::last(2, 2, 3, None, Some("/s?tier=1&page=1&per_page=2"))]
    #[case::exact(1, 3, 3, None, None)]
    #[case::none(1, 20, 0, None, None)]
    fn links(
        #[case] page: u32,
        #[case] per_page: u32,
        #[case] total: u64,
        #[case] next: Option<&str>,
        #[case] prev: Option<&str>,
    ) {
        let links = PageLinks::new("/s", "page=9&tier=1", page, per_page, total);
        assert_eq!((links.next.as_deref(), links.prev.as_deref()), (next, prev));
    }

    #[rstest]
    #[case(0, 0)]
    #[case(20, 1)]
    #[case(21, 2)]
    fn pages_are_counted(#[case] total: u64, #[case] pages: u64) {
        let page = Page::<u8>::new(Vec::new(), total, PageQuery::default(), "/s", "");
        assert_eq!(page.meta.total_pages, pages);
    }
}
