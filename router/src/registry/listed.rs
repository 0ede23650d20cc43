//! What a bucket's service answers to a listing has to be one: the library takes whatever it can read as XML for an empty list, a proxy's page as well.

use std::future::Future;
use std::pin::Pin;

use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService, ReqwestConnector,
};

/// A page of S3's has 1,000 keys of at most 1 KiB, and some fields of each.
const PAGE_BYTES: usize = 16 << 20;
/// The element that a list is in.
const LIST: &[u8] = b"<ListBucketResult";

/// Makes clients that take no other answer for a list.
#[derive(Debug, Default)]
pub(super) struct Connector(ReqwestConnector);

/// One of them.
#[derive(Debug)]
struct Client(HttpClient);

/// What is said of it.
pub(super) const NO_LIST: &str = "is no S3 service: it answers a listing with something else than a ListBucketResult";

/// What came is no list.
#[derive(Debug, thiserror::Error)]
#[error("this {NO_LIST}")]
struct NoList;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Client(self.0.connect(options)?)))
    }
}

impl HttpService for Client {
    fn call<'s, 'f>(&'s self, request: HttpRequest) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            let lists = request.method() == Method::GET && request.uri().query().is_some_and(|query| query.contains("list-type="));
            let response = self.0.execute(request).await?;
            if lists && response.status() == StatusCode::OK { list(response).await } else { Ok(response) }
        })
    }
}

/// The answer, if it is a list.
async fn list(response: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (head, body) = response.into_parts();
    let whole = Limited::new(body, PAGE_BYTES).collect().await;
    let whole = whole.map_err(|error| match error.downcast::<HttpError>() {
        Ok(error) => *error,
        Err(other) => HttpError::new_boxed(HttpErrorKind::Decode, other),
    })?;
    let bytes = whole.to_bytes();
    if !bytes.windows(LIST.len()).any(|part| part == LIST) {
        return Err(HttpError::new(HttpErrorKind::Decode, NoList));
    }
    Ok(HttpResponse::from_parts(head, HttpResponseBody::from(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(body: impl Into<String>) -> Result<String, String> {
        let response = HttpResponse::new(HttpResponseBody::from(body.into()));
        let listed = list(response).await.map_err(|error| error.to_string())?;
        let bytes = listed.into_body().bytes().await.map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    #[tokio::test]
    async fn a_page_that_is_no_list_is_none() {
        let empty = "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><KeyCount>0</KeyCount></ListBucketResult>";
        assert_eq!(read(empty).await.as_deref(), Ok(empty));
        for page in ["", "<html>hello</html>", "{}", "<Error/>"] {
            let said = read(page).await.unwrap_err();
            assert!(said.contains(NO_LIST), "{page}: {said}");
        }
        assert!(read(" ".repeat(PAGE_BYTES + 1)).await.is_err(), "there is a limit");
    }
}
