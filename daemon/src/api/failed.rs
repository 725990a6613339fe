//! Error responses: `{"error": "…"}`.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use crate::store;
use cc_core::status::Failure;

/// Status code and reason.
#[derive(Debug)]
pub(super) struct Failed(pub(super) StatusCode, pub(super) String);

impl Failed {
    /// A request that cannot be fulfilled.
    pub(super) fn asked(why: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, why.into())
    }
}

/// [`store::handle::Handle::call`] has logged the reason already.
impl From<store::Error> for Failed {
    fn from(error: store::Error) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, format!("the database: {error}"))
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Json(Failure { error: self.1 })).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    #[tokio::test]
    async fn the_cause_is_in_the_answer_and_the_status_says_whose_fault_it_is() {
        let full = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), Some("no room at all".into()));
        for (failed, status, cause) in [
            (Failed::from(store::Error::from(full)), StatusCode::INTERNAL_SERVER_ERROR, "the database: no room at all"),
            (Failed::from(store::Error::Newer), StatusCode::INTERNAL_SERVER_ERROR, "a newer version"),
            (Failed::asked("`x` is no address"), StatusCode::BAD_REQUEST, "`x` is no address"),
        ] {
            let answer = failed.into_response();
            assert_eq!(answer.status(), status);
            let body = axum::body::to_bytes(answer.into_body(), 4096).await.unwrap();
            let Failure { error } = serde_json::from_slice(&body).unwrap();
            assert!(error.contains(cause), "{error}");
        }
    }
}
