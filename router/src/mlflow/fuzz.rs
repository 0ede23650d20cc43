//! Fuzz targets of MLflow: a webhook's delivery is believed only when it was signed, and an `MLmodel` names a file inside the model or none.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use switchback_fuzz::{Target, kind_of, trace};

use super::mlmodel::tests::{ONNX, SKLEARN};
use super::mlmodel::{MlModel, is_inside};
use super::model_uri::ModelUri;
use super::webhook::tests::{BODY, NOW_MS, SECRET, headers, sign, webhook};
use super::webhook::{Event, Refused};
use crate::config::is_mlflow_name;

const DELIVERY_WORDS: [&[u8]; 24] = [
    b"{\"entity\":\"model_version_alias\",",
    b"{\"entity\":\"registered_model\",",
    b"\"action\":\"created\",",
    b"\"action\":\"deleted\",",
    b"\"timestamp\":\"2026-11-29T14:50:00+00:00\",",
    b"\"workspace\":\"default\",",
    b"\"workspace\":\"b\",",
    b"\"workspace\":null,",
    b"\"data\":{",
    b"\"name\":\"search\",",
    b"\"name\":\"../x\",",
    b"\"alias\":\"champion\",",
    b"\"alias\":\"a@b\",",
    b"\"version\":\"3\"}}",
    b"\"version\":\"0\"}}",
    b"\"version\":18446744073709551616}}",
    b"null",
    b"v1,",
    b"AAAA",
    b" ",
    b"1795963800",
    b"\\u0000",
    b"}",
    b"\n",
];

/// The first line is what stands in the headers, `id timestamp signature`; the rest is the body. Each is also tried with a signature that is good.
#[test]
fn mlflow_webhook() {
    let seeds = vec![[b"a 1795963800 v1,AAAA\n", BODY.as_bytes()].concat()];
    Target { name: "mlflow_webhook", words: &DELIVERY_WORDS, seeds, most_bytes: 2_048 }.run(|bytes| {
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let body = bytes.get(end + 1..).unwrap_or_default();
        let mut parts = head.splitn(3, ' ');
        let (id, written, signature) =
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let webhook = webhook();
        let good = sign(SECRET, id, written, body);
        let as_said = webhook.verify(&headers(id, written, signature), body, NOW_MS);
        assert!(as_said.is_err() || signature.split(' ').any(|one| one == good), "{head}");
        let signed = webhook.verify(&headers(id, written, &good), body, NOW_MS);
        if let Ok(signed) = &signed {
            assert!(signed.id == id && signed.unix_seconds.abs_diff(NOW_MS / 1_000) <= 300, "{signed:?}");
        }
        assert_ne!(signed, Err(Refused::Signature));
        // Whoever signed it, it names an alias of MLflow's or is of no interest.
        let way = match Event::read(body) {
            Ok(Event::AliasSet { model, alias, version }) => {
                assert!(is_mlflow_name(&model) && is_mlflow_name(&alias) && version > 0);
                let uri = ModelUri::of_alias(&model, &alias);
                assert_eq!(uri.to_string().parse(), Ok(uri));
                "alias".to_owned()
            }
            Ok(Event::Other(_)) => "other".to_owned(),
            Ok(Event::Elsewhere(_)) => "elsewhere".to_owned(),
            Err(why) => kind_of(&why),
        };
        trace((as_said.is_ok(), signed.err().map(Refused::label), way))
    });
}

#[test]
fn mlmodel() {
    let words: [&[u8]; 28] = [
        b"flavors:\n",
        b"  onnx:\n",
        b"  lightgbm:\n",
        b"  sklearn:\n",
        b"  pytorch:\n",
        b"  python_function:\n",
        b"    data: ",
        b"    pickled_model: ",
        b"    model_data: ",
        b"model.onnx\n",
        b"../x",
        b"/etc/passwd",
        b"model.pkl",
        b"null",
        b"{a: &a [x, x], b: *a}",
        b"&a ",
        b"*a",
        b"<<: ",
        b"- ",
        b"|\n",
        b">\n",
        b"'",
        b"\"\\n\"",
        b"---\n",
        b"...\n",
        b"!!binary ",
        b"[[[[",
        b"#",
    ];
    let seeds = vec![ONNX.as_bytes().to_vec(), SKLEARN.as_bytes().to_vec()];
    Target { name: "mlmodel", words: &words, seeds, most_bytes: 4_096 }.run(|bytes| {
        let model = match MlModel::read(bytes) {
            Ok(model) => model,
            Err(why) => {
                assert!(!why.contains('\n') && why.chars().count() <= 300, "{why}");
                return trace(kind_of(&why));
            }
        };
        match model.artefact() {
            Ok(artefact) => {
                let climbs = artefact.path.split('/').any(|part| part == "..");
                assert!(is_inside(&artefact.path) && !artefact.path.starts_with('/') && !climbs, "{artefact:?}");
                trace((artefact.flavour, artefact.format.is_some(), artefact.path.len().min(3)))
            }
            Err(why) => trace(kind_of(&why)),
        }
    });
}
