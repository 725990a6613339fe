use super::*;
use cc_core::{
    destination::{Kind, langfuse::SECRET_KEY},
    secret::Secret,
};

fn write(dir: &Path, name: &str, env: &str) {
    std::fs::create_dir_all(dir.join(".claude")).unwrap();
    std::fs::write(dir.join(".claude").join(name), format!(r#"{{"hooks":{{}},"env":{env}}}"#)).unwrap();
}

fn to(url: &str, key: &str) -> Destination {
    Destination { kind: Kind::Langfuse, address: url.into(), account: key.into() }
}

fn secrets(key: &str) -> Secrets {
    [(SECRET_KEY, Secret::new(key))].into_iter().collect()
}

#[test]
fn a_key_is_found_beside_its_own_server_only() {
    let base = tempfile::tempdir().unwrap();
    let (home, a, b) = (base.path().join("home"), base.path().join("a"), base.path().join("b"));
    write(&a, "settings.json", r#"{"LANGFUSE_PUBLIC_KEY":"pk-a","LANGFUSE_SECRET_KEY":"committed"}"#);
    write(
        &a,
        "settings.local.json",
        r#"{"LANGFUSE_BASE_URL":"https://A.example/","LANGFUSE_PUBLIC_KEY":"pk-a","LANGFUSE_SECRET_KEY":"local","X":1}"#,
    );
    write(
        &b,
        "settings.local.json",
        r#"{"LANGFUSE_PUBLIC_KEY":"pk-b","LANGFUSE_SECRET_KEY":"b","CC_LANGFUSE_SECRET_KEY":""}"#,
    );
    write(
        &home,
        "settings.json",
        r#"{"CC_LANGFUSE_PUBLIC_KEY":"","LANGFUSE_PUBLIC_KEY":"pk-u","LANGFUSE_SECRET_KEY":"user"}"#,
    );
    let dirs = [a, b];
    for (url, key, expect) in [
        ("https://a.example", "pk-a", Some("local")),
        ("https://cloud.langfuse.com", "pk-a", None),
        ("https://cloud.langfuse.com", "pk-b", Some("b")),
        ("https://cloud.langfuse.com", "pk-u", Some("user")),
        ("https://evil.example", "pk-u", None),
    ] {
        let found = from_settings(&to(url, key), &dirs, &[], &home, false);
        assert!(found == expect.map(secrets), "{url} {key}");
    }
}

#[test]
fn a_key_that_others_wrote_is_used_only_where_they_are_trusted() {
    let base = tempfile::tempdir().unwrap();
    let (home, shared) = (base.path().join("home"), base.path().join("shared"));
    write(&shared, "settings.json", r#"{"LANGFUSE_SECRET_KEY":"theirs"}"#);
    write(&home, "settings.json", r#"{"LANGFUSE_PUBLIC_KEY":"pk-u"}"#);
    for (trusts, expect) in [(false, None), (true, Some("theirs"))] {
        let found =
            from_settings(&to("https://cloud.langfuse.com", "pk-u"), std::slice::from_ref(&shared), &[], &home, trusts);
        assert!(found == expect.map(secrets), "{trusts}");
    }
}
