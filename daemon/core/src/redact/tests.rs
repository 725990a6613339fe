//! Nothing here is a secret, and no literal looks like one: all are assembled at run time.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::Value;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

use super::{
    find::{continues_word, rule_name, spellings},
    kinds::unmasked,
    rules::{OTHERS, PASSWORDS, SPECS, Spec},
    services::TOKENS,
    *,
};

use self::ordinary::{CODE, MENTIONS, near_misses};

mod ordinary;

static REDACTOR: LazyLock<Redactor> = LazyLock::new(Redactor::new);

const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const HEX: &str = "0123456789abcdef";

/// A fixed sequence of characters that look random.
fn random(alphabet: &str, len: usize) -> String {
    let mut state = len as u64 + 7;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(alphabet.as_bytes()[(state >> 33) as usize % alphabet.len()])
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn every_pattern_compiles() {
    let finder = find::Finder::new();
    (0..SPECS.len()).for_each(|index| assert!(finder.pattern(index).captures_len() <= 2, "{}", SPECS[index].name));
}

fn alnum(len: usize) -> String {
    random(ALNUM, len)
}

fn hex(len: usize) -> String {
    random(HEX, len)
}

struct Dice(u64);

impl Dice {
    /// Characters of every kind that the alphabet has.
    fn mixed(&mut self, alphabet: &str, len: usize) -> String {
        let mut next = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(alphabet.as_bytes()[(self.0 >> 33) as usize % alphabet.len()])
        };
        loop {
            let text: String = (0..len).map(|_| next()).collect();
            let letters = text.bytes().filter(u8::is_ascii_alphanumeric).count();
            if text.bytes().any(|b| b.is_ascii_digit()) && letters * 4 >= len * 3 {
                return text;
            }
        }
    }
}

fn scrub(text: &str) -> Option<String> {
    REDACTOR.scrub(text, &mut Counts::new())
}

fn scrub_json(json: &str) -> Option<String> {
    REDACTOR.scrub_json(json, &mut Counts::new())
}

fn key_block(lines: usize) -> String {
    let body: String = (0..lines).map(|i| random(ALNUM, 64 - i) + "\n").collect();
    ["-----BEGIN RSA ", "PRIVATE KEY-----\n", &body, "-----END RSA ", "PRIVATE KEY-----"].concat()
}

fn jwt() -> String {
    [&["ey", "J"].concat(), &*alnum(33), ".eyJ", &alnum(60), ".", &alnum(43)].concat()
}

/// A rule, and a text of its shape that is a secret as a whole.
fn shapes() -> Vec<(&'static str, String)> {
    let join = |prefix: &[&str], body: String| prefix.concat() + &body;
    vec![
        ("pem", key_block(5)),
        ("pem", key_block(5).replace('\n', "\\n")),
        ("pem", key_block(5).replace('\n', "\n    12→")),
        ("anthropic", join(&["sk-", "ant-api03-"], alnum(80))),
        ("langfuse", join(&["sk-", "lf-"], "0a1b2c3d-4e5f-6789-abcd-ef0123456789".into())),
        ("openrouter", join(&["sk-", "or-v1-"], hex(64))),
        ("openai", join(&["sk-", "proj-"], alnum(60))),
        ("openai", ["sk-", &alnum(20), "T3Blbk", "FJ", &alnum(20)].concat()),
        ("sk-key", join(&["sk", "-"], hex(32))),
        ("groq", join(&["gs", "k_"], alnum(52))),
        ("xai", join(&["xa", "i-"], alnum(80))),
        ("perplexity", join(&["pp", "lx-"], alnum(48))),
        ("replicate", join(&["r", "8_"], alnum(37))),
        ("aws-key-id", join(&["AK", "IA"], random(UPPER, 16))),
        ("aws-key-id", join(&["AS", "IA"], random(UPPER, 16))),
        ("github", join(&["gh", "p_"], alnum(36))),
        ("github", join(&["gh", "s_"], alnum(36))),
        ("github", ["github", "_pat_", &alnum(22), "_", &alnum(59)].concat()),
        ("gitlab", join(&["gl", "pat-"], alnum(20))),
        ("gitlab", join(&["gl", "rt-"], alnum(20))),
        ("slack", ["xo", "xb-", "123456789012-", "1234567890123-", &alnum(24)].concat()),
        ("slack", ["xa", "pp-", "1-A0B1C2D3E4F-", "1234567890123-", &hex(64)].concat()),
        ("stripe", join(&["sk", "_live_"], alnum(24))),
        ("stripe", join(&["rk", "_test_"], alnum(24))),
        ("stripe", join(&["wh", "sec_"], alnum(32))),
        ("npm", join(&["np", "m_"], alnum(36))),
        ("pypi", join(&["py", "pi-AgEIcHlwaS5vcmc"], alnum(80))),
        ("huggingface", join(&["h", "f_"], alnum(34))),
        ("google", join(&["AI", "za"], alnum(35))),
        ("google", join(&["GOC", "SPX-"], alnum(28))),
        ("sendgrid", ["S", "G.", &alnum(22), ".", &alnum(43)].concat()),
        ("twilio", join(&["S", "K"], hex(32))),
        ("digitalocean", join(&["do", "p_v1_"], hex(64))),
        ("atlassian", join(&["ATA", "TT3"], alnum(180))),
        ("docker", join(&["dck", "r_pat_"], alnum(27))),
        ("vault", join(&["hv", "s."], alnum(90))),
        ("grafana", join(&["gl", "sa_"], alnum(41))),
        ("sentry", join(&["sn", "trys_"], alnum(90))),
        ("linear", join(&["lin", "_api_"], alnum(40))),
        ("shopify", join(&["sh", "pat_"], hex(32))),
        ("databricks", join(&["da", "pi"], hex(32))),
        ("age", join(&["AGE-SECRET", "-KEY-1"], random(UPPER, 58))),
        ("jwt", jwt()),
    ]
}

/// A rule, a text with `@@` in place of the secret, and the secret.
fn surroundings() -> Vec<(&'static str, &'static str, String)> {
    let url = alnum(12);
    vec![
        ("aws-secret", "aws_secret_access_key = @@\n", alnum(40)),
        ("aws-secret", r#"{"SecretAccessKey": "@@"}"#, alnum(40)),
        ("slack-webhook", "https://hooks.slack.com/services/@@", ["T0123/", "B0123/", &alnum(24)].concat()),
        ("discord-webhook", "https://discord.com/api/webhooks/123456/@@", alnum(68)),
        ("authorization", "curl -H 'Authorization: Bearer @@'", alnum(30)),
        ("authorization", r#"headers={"Authorization": "Token @@"}"#, hex(40)),
        ("authorization", "Authorization: @@", alnum(30)),
        ("authorization", "Proxy-Authorization: Basic @@", STANDARD_NO_PAD.encode("alice:wonderland") + "=="),
        ("authorization", "\"Bearer @@\"", alnum(24)),
        ("url", "postgres://app:@@@db.local:5432/app?x=1", url.clone()),
        ("url", "redis://:@@@localhost", url.clone()),
        ("url", "https://ci:@@@example.com/a@b", "a".into()),
        ("assignment", "API_KEY=@@", alnum(24)),
        ("assignment", "API_TOKEN=@@", ["9a50f8a8e9bb8bdb", "5eba456bf92d5d98"].concat()),
        ("assignment", "export MY_SERVICE_TOKEN=@@ && run", alnum(24)),
        ("assignment", "  apiKey: \"@@\",", alnum(24)),
        ("assignment", "client_secret: '@@'", alnum(24)),
        ("assignment", "db.password = @@\n", alnum(16)),
        ("assignment", "PASSWORD='@@'", ["Summer", "2024!", "Sun"].concat()),
        ("assignment", "\"password\": \"@@\"", ["hunter2", "hunter2", "X9"].concat()),
        ("assignment", r#"say {\"password\": \"@@\"} now"#, ["hunter2", "hunter2", "X9"].concat()),
        ("assignment", "const TOKEN: &str = \"@@\";", alnum(32)),
        ("assignment", "token := `@@`", alnum(32)),
        ("assignment", "'secret' => '@@',", alnum(32)),
        ("assignment", "https://x.test/cb?access_token=@@&y=1", alnum(32)),
        ("assignment", "X-Api-Key: @@", hex(32)),
        ("assignment", "deploy --token=@@ --force", alnum(20)),
        ("assignment", "AccountKey=@@;EndpointSuffix=core", alnum(86) + "=="),
        ("assignment", "api_key = \"@@\"", alnum(3000)),
        ("assignment", "token: @@\n", alnum(31) + "="),
        ("assignment", "token: @@\n", alnum(30) + "=="),
        ("assignment", "PRIVATE_KEY=@@", "0x".to_owned() + &hex(64)),
        ("assignment", "const SESSION_TOKEN: StaticStr2 = @@;", alnum(32)),
        ("assignment", "admin-password=@@", ["123", "Ab", "password"].concat()),
    ]
}

#[test]
fn every_shape_is_masked_wherever_it_occurs() {
    for (rule, secret) in shapes() {
        for frame in ["@@", "see @@.", "\"@@\"", "a=@@\n", "x\\n@@\\n", "?k%3D@@", "(@@)", "ü@@ü"] {
            // Letters of all languages count for a word boundary.
            if frame.contains('ü') && !matches!(rule, "anthropic" | "openai") {
                continue;
            }
            let mut counts = Counts::new();
            let got = REDACTOR.scrub(&frame.replace("@@", &secret), &mut counts);
            let want = frame.replace("@@", &format!("[REDACTED:{rule}]"));
            assert_eq!(got.as_deref(), Some(&*want), "{rule} in {frame}");
            assert_eq!(counts, Counts::from([(rule.to_owned(), 1)]));
        }
    }
}

#[test]
fn values_are_masked_because_of_their_surroundings() {
    for (rule, frame, secret) in surroundings() {
        let mut counts = Counts::new();
        let got = REDACTOR.scrub(&frame.replacen("@@", &secret, 1), &mut counts);
        let want = frame.replacen("@@", &format!("[REDACTED:{rule}]"), 1);
        assert_eq!(got.as_deref(), Some(&*want), "{rule} in {frame}");
        assert_eq!(counts, Counts::from([(rule.to_owned(), 1)]), "{frame}");
    }
}

#[test]
fn every_rule_has_a_case() {
    let mut dice = Dice(5);
    let (mut tried, mut missed) = (0, Vec::new());
    let of_services = TOKENS.iter().flat_map(|token| {
        let body = token.body;
        token.prefixes.iter().map(move |prefix| (token, *prefix, body))
    });
    for (token, prefix, body) in of_services {
        for _ in 0..4 {
            let alphabet: String = (b'!'..=b'~').filter(|b| body.has(*b)).map(char::from).collect();
            let inner = dice.mixed(&alphabet, token.min.max(token.max.min(token.min + 8)));
            // No token ends in a character that ends a sentence.
            let secret = format!("{prefix}{}{}", &inner[1..], if token.body.has(b'a') { 'a' } else { 'A' });
            tried += 1;
            missed.extend(
                scrub(&format!("see {secret} there"))
                    .is_none_or(|masked| masked.contains(&secret[prefix.len()..]))
                    .then_some(secret),
            );
            // Too short, or the end of another word.
            let short = format!("see {prefix}{}.", "a1".repeat(2));
            assert!(token.min < 6 || scrub(&short).is_none(), "{short}");
        }
    }
    // A few look like a word.
    assert!(missed.len() * 40 <= tried, "{missed:#?} of {tried}");
    let mut tested: Vec<&str> = shapes().iter().map(|s| s.0).chain(surroundings().iter().map(|s| s.0)).collect();
    tested.extend(TOKENS.iter().map(|token| token.service));
    let rules: Vec<&str> = (0..BUILT_IN).map(rule_name).collect();
    tested.sort_unstable();
    tested.dedup();
    // The generator has cases for the others.
    let others = ["token", "cookie", "kubernetes", "pgpass", "parameter", "command", "phrase"];
    let missing: Vec<_> = rules.iter().filter(|rule| !tested.contains(rule) && !others.contains(rule)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn mask_shown(text: &str) -> String {
    let masked = if text.starts_with(['{', '[', '"']) { scrub_json(text) } else { scrub(text) };
    masked.unwrap_or_else(|| text.to_owned())
}

#[test]
fn nearly_all_of_hundreds_of_secret_kinds_are_masked_for_any_seed() {
    for seed in [1, 2, 3, 4, 5, 6, 7, 8] {
        let (left, kinds) = unmasked(seed, &mask_shown);
        assert!(kinds >= 900, "{kinds}");
        assert!(left.len() * 50 <= kinds, "seed {seed}: {} of {kinds}: {left:#?}", left.len());
    }
}

#[test]
fn masking_a_masked_text_again_changes_nothing() {
    let (left, kinds) = unmasked(11, &|text| {
        let once = mask_shown(text);
        assert_eq!(mask_shown(&once), once);
        once
    });
    assert!(left.len() * 20 < kinds);
}

#[test]
fn every_rule_has_a_near_miss() {
    let misses = near_misses();
    let has_none = |spec: &&Spec| {
        let is_tried = |miss: &String| {
            spec.keywords.iter().flat_map(|keyword| miss.match_indices(keyword)).any(|(at, keyword)| {
                !keyword.as_bytes()[0].is_ascii_alphanumeric() || !continues_word(miss.as_bytes(), at)
            })
        };
        !misses.iter().any(is_tried)
    };
    let without: Vec<_> = SPECS.iter().filter(has_none).map(|spec| (spec.name, spec.keywords)).collect();
    assert!(without.is_empty(), "{without:?}");
    let names = PASSWORDS.iter().chain(OTHERS).flat_map(|name| spellings(name));
    assert!(names.into_iter().any(|name| misses.iter().any(|miss| miss.contains(&format!("{name} = ")))));
}

#[test]
fn near_misses_are_not_masked() {
    let misses = near_misses();
    let json = |text: &str| Value::from(text).to_string();
    let lost: Vec<_> = misses.iter().filter_map(|miss| scrub(miss).or_else(|| scrub_json(&json(miss)))).collect();
    assert!(lost.is_empty(), "{lost:#?}");
}

#[test]
fn text_that_only_mentions_passwords_is_not_masked() {
    let lost: Vec<_> = MENTIONS
        .lines()
        .filter_map(|line| scrub(line).or_else(|| scrub_json(&Value::from(line).to_string())))
        .collect();
    assert!(lost.is_empty(), "{lost:#?}");
    assert_eq!(scrub(MENTIONS), None);
}

#[test]
fn ordinary_code_is_not_masked() {
    assert_eq!(CODE.lines().filter_map(scrub).collect::<Vec<_>>(), [""; 0]);
    assert_eq!(scrub(CODE), None);
    // Expected findings in this file are marked.
    for source in [include_str!("../redact.rs"), include_str!("tests/ordinary.rs"), include_str!("../consent.rs")] {
        let lost = source.lines().filter(|line| !line.contains("@@")).filter_map(scrub);
        assert_eq!(lost.collect::<Vec<_>>(), [""; 0]);
    }
}

#[test]
fn each_of_many_secrets_in_one_text_is_masked() {
    let all: String = shapes().iter().map(|(_, secret)| format!("{secret}\n")).collect();
    let mut counts = Counts::new();
    let masked = REDACTOR.scrub(&all, &mut counts).unwrap();
    let want: String = shapes().iter().map(|(rule, _)| format!("[REDACTED:{rule}]\n")).collect();
    assert_eq!(masked, want);
    assert_eq!(counts.values().sum::<u64>(), shapes().len() as u64);
}

#[test]
fn a_key_cut_short_is_masked_to_the_end() {
    let block = key_block(6);
    let cut = block.split("-----END").next().unwrap();
    assert_eq!(scrub(&format!("{cut}\nand so on")).unwrap().trim_end(), "[REDACTED:pem]\n\nand so on");
}

#[test]
fn the_more_specific_rule_names_an_overlap() {
    let token = ["gh", "p_", &alnum(36)].concat();
    assert_eq!(scrub(&format!("GITHUB_TOKEN={token}")).unwrap(), "GITHUB_TOKEN=[REDACTED:github]");
    assert_eq!(scrub(&format!("https://x:{token}@github.com")).unwrap(), "https://x:[REDACTED:github]@github.com");
    let jwt = jwt();
    assert_eq!(scrub(&format!("Authorization: Bearer {jwt}")).unwrap(), "Authorization: Bearer [REDACTED:jwt]");
}

#[test]
fn json_strings_are_decoded_and_all_other_bytes_are_kept() {
    let token = ["gh", "p_", &alnum(36)].concat();
    let escaped: String = token.chars().map(|c| format!("\\u{:04x}", c as u32)).collect();
    let json = format!("{{ \"b\" : [1.0e5, \"{escaped}\\u00e9\"],\n\t\"a\":\"\\u0041\\/\" , \"n\":1.10 }}");
    let want = "{ \"b\" : [1.0e5, \"[REDACTED:github]é\"],\n\t\"a\":\"\\u0041\\/\" , \"n\":1.10 }";
    assert_eq!(scrub_json(&json).unwrap(), want);

    let password = ["hunter2", "hunter2", "X9"].concat();
    for (json, want) in [
        ("{\"password\": \"@@\"}", "{\"password\": \"[REDACTED:assignment]\"}"),
        ("{\"password\"\n:\n\"@@\"}", "{\"password\"\n:\n\"[REDACTED:assignment]\"}"),
        ("{\"\\u0070assword\":\"@@\"}", "{\"\\u0070assword\":\"[REDACTED:assignment]\"}"),
        ("{\"passwords\": [\"x\", \"@@\"]}", "{\"passwords\": [\"x\", \"[REDACTED:assignment]\"]}"),
        (r#"{"cmd":"echo {\"password\": \"@@\"}"}"#, r#"{"cmd":"echo {\"password\": \"[REDACTED:assignment]\"}"}"#),
        ("{\"Authorization\":\"token @@\"}", "{\"Authorization\":\"token [REDACTED:authorization]\"}"),
        ("[\"url is http:\\/\\/u:@@\\u0040h\"]", "[\"url is http://u:[REDACTED:url]@h\"]"),
    ] {
        assert_eq!(scrub_json(&json.replace("@@", &password)).as_deref(), Some(want));
    }
    for json in [
        "{\"password\": 1, \"note\": \"@@\"}",
        "{\"note\": \"password\", \"x\": \"@@\"}",
        "{\"password_hint\": \"@@\"}",
        "\"@@\"",
    ] {
        assert_eq!(scrub_json(&json.replace("@@", &password)), None, "{json}");
    }
}

#[test]
fn half_a_surrogate_pair_does_not_hide_a_secret() {
    let token = ["gh", "p_", &alnum(36)].concat();
    let json = format!("[\"\\ud83d {token} \\ud83d\\ude00\"]");
    assert_eq!(scrub_json(&json).unwrap(), "[\"\u{fffd} [REDACTED:github] \u{1f600}\"]");
}

#[test]
fn invalid_json_is_masked_as_text() {
    let token = ["gh", "p_", &alnum(36)].concat();
    assert_eq!(scrub_json(&format!("{{\"a\": {token}")).unwrap(), "{\"a\": [REDACTED:github]");
}

#[test]
fn extra_rules_mask_their_group_or_the_whole_match() {
    let rule = |name: &str, pattern: &str| [(name.to_owned(), pattern.to_owned())];
    let mut counts = Counts::new();
    let redactor = Redactor::with_extra(&rule("ticket", r"ACME-\d{4}")).unwrap();
    assert_eq!(redactor.scrub("ACME-1234 ACME-x", &mut counts).unwrap(), "[REDACTED:ticket] ACME-x");
    assert_eq!(counts["ticket"], 1);
    let redactor = Redactor::with_extra(&rule("pin", r"pin=(\d+)")).unwrap();
    assert_eq!(redactor.scrub("pin=1234", &mut counts).unwrap(), "pin=[REDACTED:pin]");
    for (name, pattern) in [("broken", "("), ("empty", "a*"), ("no name]", "a"), ("", "a")] {
        let error = Redactor::with_extra(&rule(name, pattern)).err().unwrap();
        assert_eq!(error.name, name);
        assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
    }
}

#[test]
fn greedy_extra_rules_leave_masked_text_alone() {
    for pattern in ["(?s).+", r"\w+", "[A-Z]{3,}", "REDACTED", r"a.*z", r"(\w)\W"] {
        let redactor = Redactor::with_extra(&[("x".into(), pattern.into())]).unwrap();
        let text = ["some text gh", "p_", &alnum(36), " and az [REDACTED:old] more."].concat();
        let once = redactor.scrub(&text, &mut Counts::new()).unwrap();
        assert_eq!(redactor.scrub(&once, &mut Counts::new()), None, "{pattern}: {once}");
    }
}

#[test]
fn hostile_text_takes_linear_time() {
    let time = |text: &str| {
        let started = Instant::now();
        scrub(text);
        scrub_json(&serde_json::to_string(&[text]).unwrap());
        started.elapsed()
    };
    for piece in [
        "token=token1=",
        "token=",
        "sk-ant-",
        "sk-",
        "xoxb-",
        "-eyJ",
        "eyJ",
        "://a:",
        "Bearer ",
        "Authorization=",
        "-----BEGIN PRIVATE KEY-----",
        "-----END PRIVATE KEY-----\n",
        &key_block(1)[..80],
        &key_block(2)[..120],
        "password=\"a1",
        "secret",
        "glpat-",
        "glpat-sk-ant-",
        "[REDACTED:",
        "\\\"",
        "curl -u ",
        "mysql -p",
        "mysql ",
        "password: |\n",
        "password:\n  - ",
        "tokens: [\"",
        "| password ",
        "password | x\n",
        "kind: Secret\n",
        "kind: Secret\ndata:\n  a: abcdefgh\n",
        "Cookie: ",
        "Cookie: a=b;",
        "<password>",
        "://a@",
        "://a:@@",
        "UFJJVkFURSBLRVk",
        "MIIEpAIBAAKCAQEA",
        "cGFzc3dvcmQ9",
        "Private-Lines: 8\n",
        "MTAx.",
        "a:5432:b:c:",
        "?key=a1",
        "\u{1b}[31m",
        "\u{a0}",
        "password=\\\\\"",
        "user,password\n",
        "8Q~",
        "api_key:",
    ] {
        let of = |length: usize| piece.repeat(length / piece.len());
        let tries = || (time(&of(3 << 10)), time(&of(24 << 10)));
        // Eight times the text; with a quadratic rule it would be 64 times as long.
        let is_linear = |(short, long): (Duration, Duration)| long < short * 24 + Duration::from_millis(400);
        // Other programs use the processor at times, but not in all three tries.
        assert!((0..3).any(|_| is_linear(tries())), "{piece:?}: {:?}", tries());
    }
}

/// Text that contains what the rules look for, in any order.
fn nasty() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => prop::sample::select(shapes()).prop_map(|(_, secret)| secret),
        3 => prop::sample::select(surroundings()).prop_map(|(_, frame, secret)| frame.replacen("@@", &secret, 1)),
        2 => prop::sample::select(REDACTOR_WORDS.clone()),
        2 => prop::sample::select(vec!["=", ": ", "\"", "'", "\\", "\\n", " ", "\n", "@", "-", "_", "[REDACTED:x]", "ü", ".", "%3D"])
            .prop_map(str::to_owned),
        1 => "[A-Za-z0-9+/=_.-]{1,40}",
        1 => "\\PC{0,12}",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

static REDACTOR_WORDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let names = PASSWORDS.iter().chain(OTHERS).flat_map(|name| spellings(name));
    SPECS.iter().flat_map(|spec| spec.keywords).map(|word| (*word).to_owned()).chain(names).collect()
});

#[test]
fn the_rest_of_a_partly_masked_member_is_still_masked_as_its_value() {
    let key = ["sk-ant-api03-", "f8nW8IbrcbkwRlQblMTbf2LSVTGmUhYR39Pm3ccfIxzYSaIVq1uNypYzU54GhXNP8H9FrFPXDYKdSuzEAA"]
        .concat();
    let json = format!(r#"{{"Authorization":"{key}: pXzmCGT2QJyWu0LwNHfcX1nYlQ5B2J"}}"#);
    let masked = scrub_json(&json).unwrap();
    assert_eq!(masked, r#"{"Authorization":"[REDACTED:anthropic]: [REDACTED:authorization]"}"#);
    assert_eq!(scrub_json(&masked), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn masking_again_finds_nothing(text in nasty()) {
        if let Some(once) = scrub(&text) {
            prop_assert_eq!(scrub(&once), None, "{}", once);
        }
    }

    #[test]
    fn json_stays_json_of_the_same_form(strings in prop::collection::vec((nasty(), nasty()), 0..4), number in any::<f64>()) {
        let members = strings.into_iter().map(|(key, value)| (key, Value::from(vec![Value::from(value), number.into()])));
        let members: serde_json::Map<String, Value> = members.collect();
        let flat: serde_json::Map<String, Value> = members.iter().map(|(k, v)| (k.clone(), v[0].clone())).collect();
        for json in [Value::Object(members).to_string(), Value::Object(flat).to_string()] {
            if let Some(masked) = scrub_json(&json) {
                serde_json::from_str::<IgnoredAny>(&masked).unwrap();
                let quotes = |json: &str| { let mut n = 0; let mut at = 0;
                    while let Some(i) = json[at..].find('"') { at = string_end(json.as_bytes(), at + i + 1) + 1; n += 1; } n };
                prop_assert_eq!(quotes(&masked), quotes(&json));
                prop_assert_eq!(scrub_json(&masked), None, "{}", masked);
            }
        }
    }

    #[test]
    fn decodes_as_serde_does(text in any::<String>()) {
        let json = serde_json::to_string(&text).unwrap();
        let mut decoded = String::new();
        decode(&json[1..json.len() - 1], &mut decoded);
        prop_assert_eq!(&decoded, &text);
        let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        decode(&escaped, &mut decoded);
        prop_assert_eq!(decoded, text);
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for text in [&*text, &*String::from_utf8_lossy(&bytes)] {
            scrub(text);
            scrub_json(text);
            scrub_json(&format!("[\"{text}\"]"));
            decode(text, &mut String::new());
        }
    }
}
