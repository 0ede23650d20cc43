//! Ended in the middle and run again: it ends as if it had run once.

use model_servers::{Wanted, bring_up};

use super::http::{Reply, always};
use super::{by_name, client, golden, settings, silent, specific, wanted};

#[tokio::test]
async fn told_which_versions() {
    let golden = golden();
    let (client, settings, wanted) = (client(), settings(), wanted(Some(&golden)));
    for request in 1.. {
        let (one, two, urls) = specific::pair(&[1, 2, 3], &[1, 2]).await;
        let mut is_over = false;
        tokio::select! {
            biased;
            () = two.saw(request) => {}
            ended = bring_up(&client, &settings, &urls, &wanted, None, &silent) => { ended.unwrap(); is_over = true; }
        }
        bring_up(&client, &settings, &urls, &wanted, None, &silent).await.unwrap();
        assert_eq!((one.fake.served(), two.fake.served()), ([3].into(), [3].into()), "ended after {request}");
        if is_over {
            assert!(request > 8);
            break;
        }
    }
}

#[tokio::test]
async fn by_name() {
    let golden = golden();
    let (client, settings, wanted) = (client(), settings(), wanted(Some(&golden)));
    for request in 1.. {
        let (root, folder, file) = by_name::repository(&[1, 7]);
        let (one, two, urls) = by_name::pair(root.path()).await;
        let mut is_over = false;
        tokio::select! {
            biased;
            () = two.saw(request) => {}
            ended = bring_up(&client, &settings, &urls, &wanted, Some((&folder, &file)), &silent) => { ended.unwrap(); is_over = true; }
        }
        bring_up(&client, &settings, &urls, &wanted, Some((&folder, &file)), &silent).await.unwrap();
        let all = [one.fake.served(), two.fake.served(), folder.versions().unwrap()];
        assert_eq!(all, [[3].into(), [3].into(), [3].into()], "ended after {request}");
        assert_eq!(std::fs::read_dir(root.path().join("m")).unwrap().count(), 1, "ended after {request}");
        if is_over {
            assert!(request > 8);
            break;
        }
    }
}

/// The second try fails: the pool goes back to what it served before the first one.
#[tokio::test]
async fn and_then_it_fails() {
    let golden = golden();
    let (client, settings) = (client(), settings());
    for request in 1.. {
        let (one, two, urls) = specific::pair(&[1, 3], &[1]).await;
        let wanted = Wanted { previous: Some(1), ..wanted(Some(&golden)) };
        let mut is_over = false;
        tokio::select! {
            biased;
            () = two.saw(request) => {}
            ended = bring_up(&client, &settings, &urls, &wanted, None, &silent) => { ended.unwrap(); is_over = true; }
        }
        if is_over {
            break;
        }
        one.goes_wrong(always("infer", Reply::Status(400, String::new())));
        let fault = bring_up(&client, &settings, &urls, &wanted, None, &silent).await.unwrap_err();
        assert_eq!(fault.undone, Some(Ok(())), "ended after {request}: {fault}");
        assert_eq!((one.fake.served(), two.fake.served()), ([1].into(), [1].into()), "ended after {request}");
    }
}

/// The same by name. What was cleared away for good does not come back, and then the version that is there stays.
#[tokio::test]
async fn and_then_it_fails_by_name() {
    let golden = golden();
    let (client, settings) = (client(), settings());
    let (mut went_back, mut stayed) = (0, 0);
    for request in 1.. {
        let (root, folder, file) = by_name::repository(&[1, 7]);
        let (one, two, urls) = by_name::pair(root.path()).await;
        let wanted = Wanted { previous: Some(7), ..wanted(Some(&golden)) };
        let mut is_over = false;
        tokio::select! {
            biased;
            () = two.saw(request) => {}
            ended = bring_up(&client, &settings, &urls, &wanted, Some((&folder, &file)), &silent) => { ended.unwrap(); is_over = true; }
        }
        one.goes_wrong(always("infer", Reply::Status(400, String::new())));
        let fault = bring_up(&client, &settings, &urls, &wanted, Some((&folder, &file)), &silent).await.unwrap_err();
        let all = [one.fake.served(), two.fake.served(), folder.versions().unwrap()];
        let case = format!("ended after {request}: {fault}: {all:?}");
        match fault.undone.unwrap() {
            Ok(()) => {
                went_back += 1;
                assert_eq!(all, [[1, 7].into(), [1, 7].into(), [1, 7].into()], "{case}");
            }
            Err(why) => {
                stayed += 1;
                assert!(why.ends_with("version 7 is not there any more: the endpoints keep what they served"), "{case}");
                assert_eq!(all, [[3].into(), [3].into(), [3].into()], "{case}");
            }
        }
        if is_over {
            break;
        }
    }
    assert!(went_back > 8 && stayed >= 1, "{went_back} {stayed}");
}
