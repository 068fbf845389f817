//! The description of the API, as programs and people get it.

use reqwest::Method;
use sdp_server::api::endpoints;
use serde_json::Value;

use crate::support::{Api, Plane};

#[tokio::test]
async fn the_description_is_complete_and_there_for_everybody() {
    let plane = Plane::new().await;
    let api = Api::new(plane.address());
    let (status, document) = api.get("/api/openapi.json").await;
    assert_eq!((status, &document["openapi"]), (200, &Value::from("3.1.0")));
    for endpoint in endpoints() {
        let method = endpoint.method.as_str().to_lowercase();
        assert!(document["paths"][endpoint.path][method].is_object(), "{} {}", endpoint.method, endpoint.path);
    }
    let login = &document["paths"]["/api/login"]["post"];
    let field = |name: &str| document["components"]["schemas"]["LoginRequest"]["properties"][name].clone();
    assert_eq!(login["requestBody"]["content"]["application/json"]["example"]["username"], "ada");
    assert_eq!(field("username")["$ref"], "#/components/schemas/UserName");
    assert!(login["responses"]["429"]["headers"]["Retry-After"].is_object());
    plane.server.shutdown().await;
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let plane = Plane::new().await;
    let api = Api::new(plane.address());
    for (path, kind) in
        [("/api/docs", "text/html"), ("/api/docs/page.js", "text/javascript"), ("/api/docs/page.css", "text/css")]
    {
        let answer = api.raw(Method::GET, path, &[], String::new()).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with(kind), "{path}");
        let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let text = answer.text().await.unwrap();
        assert!(!text.contains("://") && !text.contains("innerHTML"), "{path}");
        for link in text.split(['"', '\'']).filter(|part| part.starts_with("/api/")) {
            assert_eq!(api.raw(Method::GET, link, &[], String::new()).await.status(), 200, "{link}");
        }
    }
    plane.server.shutdown().await;
}
