//! Servers that know a model by its name, and serve every version of their folder.

use std::path::{Path, PathBuf};

use model_servers::{FaultKind, Folder, SettingsFile, Wanted, bring_up, retire};

use super::fakes::MlServer;
use super::http::{Reply, Running, Wrong, always, no};
use super::{client, golden, settings, silent, wanted};

/// A repository with these versions, which is ours, and a file to put there.
pub(crate) fn repository(versions: &[u64]) -> (tempfile::TempDir, Folder, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let text = r#"{"name": "{model}", "parameters": {"uri": "./{file}", "version": "{version}"}}"#.to_owned();
    let settings = SettingsFile { name: "model-settings.json".to_owned(), text };
    let folder = Folder::new(root.path(), "m", "model.txt", Some(settings)).unwrap();
    let file = root.path().join("artefact");
    std::fs::write(&file, "trees").unwrap();
    for version in versions {
        folder.put(*version, &file).unwrap();
    }
    (root, folder, file)
}

pub(crate) async fn pair(root: &Path) -> (Running<MlServer>, Running<MlServer>, Vec<String>) {
    let (one, two) = (Running::start(MlServer::new(root)).await, Running::start(MlServer::new(root)).await);
    let urls = vec![one.url.clone(), two.url.clone()];
    (one, two, urls)
}

#[tokio::test]
async fn a_folder_of_ours_holds_what_is_served() {
    let (root, folder, file) = repository(&[1, 7]);
    let (one, two, urls) = pair(root.path()).await;
    let golden = golden();
    let report = bring_up(&client(), &settings(), &urls, &wanted(Some(&golden)), Some((&folder, &file)), &silent).await.unwrap();
    assert_eq!((one.fake.served(), two.fake.served(), folder.versions().unwrap()), ([3].into(), [3].into(), [3].into()));
    assert!(report.endpoints.iter().all(|found| found.beside.is_empty() && found.queries == 6));
    // Nothing hidden is left.
    assert_eq!(std::fs::read_dir(root.path().join("m")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_folder_of_somebody_else_keeps_its_versions() {
    let (root, _, _) = repository(&[1, 3]);
    let (one, _two, urls) = pair(root.path()).await;
    let report = bring_up(&client(), &settings(), &urls, &wanted(None), None, &silent).await.unwrap();
    assert_eq!((one.fake.served(), report.endpoints[0].beside.as_slice()), ([1, 3].into(), [1].as_slice()));
}

#[tokio::test]
async fn a_version_that_is_in_no_folder_never_gets_ready() {
    let (root, _, _) = repository(&[1]);
    let (one, _two, urls) = pair(root.path()).await;
    let settings = model_servers::Settings { load_timeout: std::time::Duration::from_millis(300), ..settings() };
    let fault = bring_up(&client(), &settings, &urls, &wanted(None), None, &silent).await.unwrap_err();
    assert_eq!((fault.kind, &fault.undone), (FaultKind::Refused, &Some(Ok(()))));
    assert!(fault.why.contains("the index does not have it: is its file in the server's repository?"), "{fault}");
    assert_eq!(one.fake.served(), [1].into());
}

#[tokio::test]
async fn what_cannot_be_undone_is_said() {
    let (root, _, file) = repository(&[1]);
    let (one, two, urls) = pair(root.path()).await;
    let (_, theirs, _) = repository(&[]);
    drop(theirs);
    let somebody = Folder::new(
        root.path(),
        "m",
        "model.txt",
        Some(SettingsFile { name: "model-settings.json".to_owned(), text: r#"{"parameters": {"version": "{version}"}}"#.to_owned() }),
    )
    .unwrap();
    somebody.put(3, &file).unwrap();
    two.goes_wrong(always("infer", no(400, "bad input")));
    let golden = golden();
    let fault = bring_up(&client(), &settings(), &urls, &wanted(Some(&golden)), None, &silent).await.unwrap_err();
    let undone = fault.undone.unwrap().unwrap_err();
    assert!(undone.contains("takes every version that is in its folder: version 3 stays beside 1"), "{undone}");
    assert_eq!(one.fake.served(), [1, 3].into());
}

#[tokio::test]
async fn one_that_is_called_otherwise_is_found_out() {
    for (versions, is_ours) in [([1].as_slice(), true), (&[1, 3], false)] {
        let (root, folder, file) = repository(versions);
        let mut fake = MlServer::new(root.path());
        fake.name = "ranking";
        let one = Running::start(fake).await;
        let place = is_ours.then_some((&folder, file.as_path()));
        let report = bring_up(&client(), &settings(), &[one.url.clone()], &wanted(None), place, &silent).await.unwrap();
        assert_eq!(report.endpoints[0].beside.is_empty(), is_ours);
        assert_eq!(one.fake.served(), if is_ours { [3].into() } else { [1, 3].into() });
    }
}

#[tokio::test]
async fn whatever_goes_wrong_leaves_all_as_it_was() {
    let html = Reply::Status(500, "<html>".to_owned());
    for (reply, before) in [(Reply::HangUp, [1, 7].as_slice()), (no(400, "no"), &[1, 7]), (html, &[]), (no(500, "no"), &[4])] {
        let mut faults = 0;
        for request in 0.. {
            let (root, folder, file) = repository(before);
            let (one, two, urls) = pair(root.path()).await;
            two.goes_wrong(Wrong { line: "", after: request, times: 1, reply: reply.clone() });
            let golden = golden();
            let ended = bring_up(&client(), &settings(), &urls, &wanted(Some(&golden)), Some((&folder, &file)), &silent).await;
            let all = [one.fake.served(), two.fake.served(), folder.versions().unwrap()];
            let case = format!("request {request}, {reply:?}: {ended:?}");
            match ended {
                Ok(_) => assert_eq!(all, [[3].into(), [3].into(), [3].into()], "{case}"),
                Err(fault) => {
                    faults += 1;
                    assert!(matches!(fault.undone, None | Some(Ok(()))), "{case}");
                    assert!(all.iter().all(|versions| versions.iter().eq(before)), "{case}: {all:?}");
                }
            }
            if two.lines().len() <= request {
                break;
            }
        }
        assert!(faults >= 5, "{reply:?}: {faults}");
    }
}

#[tokio::test]
async fn a_version_is_retired_from_a_folder_of_ours() {
    let (root, folder, _) = repository(&[1, 3]);
    let (one, two, urls) = pair(root.path()).await;
    let refused = retire(&client(), &settings(), &urls, &wanted(None), None).await.unwrap_err();
    assert!(refused.why.contains("version 3 stays beside 1"), "{refused}");
    retire(&client(), &settings(), &urls, &wanted(None), Some(&folder)).await.unwrap();
    assert_eq!((one.fake.served(), two.fake.served(), folder.versions().unwrap()), ([1].into(), [1].into(), [1].into()));
    retire(&client(), &settings(), &urls, &Wanted { version: 1, ..wanted(None) }, Some(&folder)).await.unwrap();
    assert_eq!((one.fake.served(), folder.versions().unwrap()), ([].into(), [].into()));
}
