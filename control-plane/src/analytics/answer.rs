//! Answers as JSON, or as CSV for spreadsheets.

use actix_web::http::header::{
    ACCEPT, CONTENT_TYPE, ContentDisposition, DispositionParam, DispositionType, VARY,
};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(example = "json")]
pub(super) enum Format {
    Json,
    Csv,
}

impl Format {
    /// What the query says, or else what the client accepts.
    pub(super) fn of(asked: Option<Self>, request: &HttpRequest) -> Self {
        let accept = request.headers().get(ACCEPT);
        let accept = accept.and_then(|accept| accept.to_str().ok());
        asked.unwrap_or_else(|| Self::accepted(accept.unwrap_or_default()))
    }

    /// Of both, the one that is named first.
    fn accepted(accept: &str) -> Self {
        let names = accept.split(',').map(|item| item.split(';').next());
        let mut names = names.map(|name| name.unwrap_or_default().trim());
        match names.find(|name| matches!(*name, "text/csv" | "application/json" | "*/*")) {
            Some("text/csv") => Self::Csv,
            _ => Self::Json,
        }
    }

    /// The answer: `view` as JSON, or its rows as a file of this name.
    pub(super) fn answer<V: Serialize, R: Row>(
        self,
        view: &V,
        rows: &[R],
        name: &str,
    ) -> Result<HttpResponse, ApiError> {
        let mut response = HttpResponse::Ok();
        response.insert_header((VARY, "Accept"));
        if self == Self::Json {
            return Ok(response.json(view));
        }
        let file = DispositionParam::Filename(format!("{name}.csv"));
        Ok(response
            .insert_header((CONTENT_TYPE, "text/csv; charset=utf-8"))
            .insert_header(ContentDisposition {
                disposition: DispositionType::Attachment,
                parameters: vec![file],
            })
            .body(table(rows)?))
    }
}

/// What stands above some cells.
pub(super) type Names = &'static [&'static str];

/// A row of a table.
pub(super) trait Row {
    /// The names above its cells, group by group.
    const HEADER: &'static [Names];

    fn cells(&self) -> Vec<String>;
}

fn table<R: Row>(rows: &[R]) -> Result<Vec<u8>, ApiError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let names = R::HEADER.concat();
    writer.write_record(names).map_err(ApiError::internal)?;
    for row in rows {
        let cells = row.cells().into_iter().map(inert);
        writer.write_record(cells).map_err(ApiError::internal)?;
    }
    writer
        .into_inner()
        .map_err(|error| ApiError::internal(error.into_error()))
}

/// A spreadsheet takes what begins like this for a formula, unless it is quoted.
fn inert(cell: String) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        return format!("'{cell}");
    }
    cell
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    struct Named(&'static str);

    impl Row for Named {
        const HEADER: &'static [Names] = &[&["name"], &["bytes"]];

        fn cells(&self) -> Vec<String> {
            vec![self.0.to_owned(), "7".to_owned()]
        }
    }

    #[rstest]
    #[case("fra1", "fra1,7")]
    #[case("a,b", "\"a,b\",7")]
    #[case("say \"x\"", "\"say \"\"x\"\"\",7")]
    #[case("=1+1", "'=1+1,7")]
    #[case("+1", "'+1,7")]
    #[case("-1", "'-1,7")]
    #[case("@sum", "'@sum,7")]
    #[case("\t=1", "'\t=1,7")]
    fn a_cell_is_text_to_a_spreadsheet(#[case] name: &'static str, #[case] line: &str) {
        let text = String::from_utf8(table(&[Named(name)]).unwrap()).unwrap();
        assert_eq!(text, format!("name,bytes\n{line}\n"));
    }

    #[test]
    fn an_empty_table_has_its_header() {
        assert_eq!(table::<Named>(&[]).unwrap(), b"name,bytes\n");
    }

    #[rstest]
    #[case("", Format::Json)]
    #[case("*/*", Format::Json)]
    #[case("text/csv", Format::Csv)]
    #[case("text/html, text/csv;q=0.9, */*", Format::Csv)]
    #[case("application/json, text/csv", Format::Json)]
    fn what_is_accepted_first_is_answered(#[case] accept: &str, #[case] format: Format) {
        assert_eq!(Format::accepted(accept), format);
    }
}
