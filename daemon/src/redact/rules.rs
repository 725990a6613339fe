//! What secrets look like: shapes of tokens, and names whose values are secrets.

use super::{
    AUTHORIZATION, MARK, Name,
    value::{entropy, is_basic_credentials, is_interpolated, is_password_word, is_placeholder, is_secret_value},
};

pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) keywords: &'static [&'static str],
    /// Matched at the start of a keyword. With a group, only the group is masked.
    pub(super) pattern: &'static str,
    pub(super) check: fn(&str) -> bool,
}

pub(super) const fn shape(name: &'static str, keywords: &'static [&'static str], pattern: &'static str) -> Spec {
    Spec { name, keywords, pattern, check: |_| true }
}

/// Most telling first: where matches overlap, the first names the result.
pub(super) const SPECS: &[Spec] = &[
    // The text between the lines is free (line numbers, quotes, escapes of a listing), but a long run of base64 must be
    // in it. Without an END line – the output was cut – only what continues the run is taken.
    shape(
        "pem",
        &["-----BEGIN "],
        r#"(?x) -----BEGIN\x20[A-Z0-9\x20]{0,40}PRIVATE\x20KEY(?:\x20BLOCK)?-----
           (?: (?:[^-]|-[^-])* [A-Za-z0-9+/=]{40} (?:[^-]|-[^-])* -?-----END\x20[A-Z0-9\x20]{0,40}PRIVATE\x20KEY(?:\x20BLOCK)?-----
             | (?: [\s"'+,|>→\\rn0-9]* (?: (?:Proc-Type|DEK-Info|Version|Comment):[^\r\n\\]* )? )*
               [A-Za-z0-9+/=]{40,} (?: [\s"'+,|>→\\]{1,24} (?:[0-9]{1,5}[\t→|])? [A-Za-z0-9+/=]{16,} )* )"#,
    ),
    shape("anthropic", &["sk-ant-"], r"sk-ant-[A-Za-z0-9_-]{20,}"),
    shape("langfuse", &["sk-lf-"], r"sk-lf-[A-Za-z0-9_-]{16,}"),
    shape("openrouter", &["sk-or-"], r"sk-or-(?:v1-)?[A-Za-z0-9]{32,}"),
    shape(
        "openai",
        &["sk-"],
        r"sk-(?:(?:proj|svcacct|admin)-[A-Za-z0-9_-]{20,}|[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20})",
    ),
    // Half of all vendors took over the prefix, without a structure behind it.
    Spec { name: "sk-key", keywords: &["sk-"], pattern: r"sk-[A-Za-z0-9]{32,}", check: |m| entropy(&m[3..]) >= 3.0 },
    shape("groq", &["gsk_"], r"gsk_[A-Za-z0-9]{40,}"),
    shape("xai", &["xai-"], r"xai-[A-Za-z0-9]{40,}"),
    shape("perplexity", &["pplx-"], r"pplx-[A-Za-z0-9]{40,}"),
    shape("replicate", &["r8_"], r"r8_[A-Za-z0-9]{37,}"),
    // The id from the vendor's manual is everywhere.
    Spec {
        name: "aws-key-id",
        keywords: &["AKIA", "ASIA", "ABIA", "ACCA"],
        pattern: r"A(?:KIA|SIA|BIA|CCA)[A-Z2-7]{16}\b",
        check: |m| !m.ends_with("EXAMPLE"),
    },
    Spec {
        name: "aws-secret",
        keywords: &["aws_secret_access_key", "AWS_SECRET_ACCESS_KEY", "SecretAccessKey", "secretAccessKey"],
        pattern: r#"(?i)[a-z_]+\\*["']?[ \t]*(?:=>|[=:,])[ \t]*\\*["']?([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|\z)"#,
        check: |m| !m.ends_with("EXAMPLEKEY"),
    },
    shape("github", &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"], r"gh[pousr]_[A-Za-z0-9]{36,}"),
    shape("github", &["github_pat_"], r"github_pat_[A-Za-z0-9_]{50,}"),
    shape(
        "gitlab",
        &["glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glsoat-", "glft-", "glagent-"],
        r"gl[a-z]{2,5}-[A-Za-z0-9_-]{20,}(?:\.[0-9a-z]{2}\.[0-9a-z]{9})?",
    ),
    shape(
        "slack",
        &["xoxa-", "xoxb-", "xoxc-", "xoxe-", "xoxe.", "xoxo-", "xoxp-", "xoxr-", "xoxs-"],
        r"xox[a-z](?:\.xox[bp])?-[0-9][A-Za-z0-9-]{9,}",
    ),
    shape("slack", &["xapp-"], r"xapp-[0-9]-[A-Z0-9]+-[0-9]+-[A-Za-z0-9]{10,}"),
    shape(
        "slack-webhook",
        &["hooks.slack.com/"],
        r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9/_-]{20,})",
    ),
    shape(
        "discord-webhook",
        &["discord.com/api/webhooks/", "discordapp.com/api/webhooks/"],
        r"discord(?:app)?\.com/api/webhooks/[0-9]+/([A-Za-z0-9_-]{50,})",
    ),
    shape(
        "stripe",
        &["sk_live_", "sk_test_", "sk_prod_", "rk_live_", "rk_test_", "rk_prod_"],
        r"[sr]k_(?:live|test|prod)_[A-Za-z0-9]{16,}",
    ),
    shape("stripe", &["whsec_"], r"whsec_[A-Za-z0-9+/]{24,}={0,2}"),
    shape("npm", &["npm_"], r"npm_[A-Za-z0-9]{36}\b"),
    shape("pypi", &["pypi-AgE"], r"pypi-AgE[A-Za-z0-9_-]{40,}"),
    shape("huggingface", &["hf_"], r"hf_[A-Za-z0-9]{30,}"),
    shape("google", &["AIza"], r"AIza[A-Za-z0-9_-]{35}(?:\b|\z)"),
    shape("google", &["GOCSPX-"], r"GOCSPX-[A-Za-z0-9_-]{24,}"),
    shape("google", &["ya29."], r"ya29\.[A-Za-z0-9_-]{20,}"),
    shape("sendgrid", &["SG."], r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}"),
    shape(
        "twilio",
        &[
            "SK0", "SK1", "SK2", "SK3", "SK4", "SK5", "SK6", "SK7", "SK8", "SK9", "SKa", "SKb", "SKc", "SKd", "SKe",
            "SKf",
        ],
        r"SK[0-9a-f]{32}\b",
    ),
    shape("digitalocean", &["dop_v1_", "doo_v1_", "dor_v1_"], r"do[opr]_v1_[0-9a-f]{64}\b"),
    shape("atlassian", &["ATATT3"], r"ATATT3[A-Za-z0-9_=-]{60,}"),
    shape("docker", &["dckr_pat_"], r"dckr_pat_[A-Za-z0-9_-]{24,}"),
    shape("vault", &["hvs.", "hvb."], r"hv[sb]\.[A-Za-z0-9_-]{24,}"),
    shape("grafana", &["glsa_", "glc_"], r"gl(?:sa|c)_[A-Za-z0-9+/_]{32,}={0,2}"),
    shape("sentry", &["sntrys_", "sntryu_"], r"sntry[su]_[A-Za-z0-9+/=_]{40,}"),
    shape("linear", &["lin_api_"], r"lin_api_[A-Za-z0-9]{40}\b"),
    shape("shopify", &["shpat_", "shpca_", "shppa_", "shpss_"], r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}\b"),
    shape("databricks", &["dapi"], r"dapi[0-9a-f]{32}(?:-[0-9])?\b"),
    shape("age", &["AGE-SECRET-KEY-1"], r"AGE-SECRET-KEY-1[0-9A-Z]{58}\b"),
    // No `-` and `_` in the header: JSON of plain letters never encodes to them.
    shape("jwt", &["eyJ"], r"eyJ[A-Za-z0-9]{17,}\.ey[A-Za-z0-9_-]{17,}\.[A-Za-z0-9_-]{10,}"),
    Spec {
        name: AUTHORIZATION,
        keywords: &["Basic ", "basic ", "BASIC "],
        pattern: r"(?i)basic[ \t]+([A-Za-z0-9+/_-]{8,}={0,2})",
        check: is_basic_credentials,
    },
    Spec {
        name: AUTHORIZATION,
        keywords: &["Bearer ", "bearer ", "BEARER "],
        pattern: r"(?i)bearer[ \t]+([A-Za-z0-9._~+/-]{16,}={0,2})",
        check: |v| is_secret_value(Name::Other, v, false),
    },
    Spec {
        name: AUTHORIZATION,
        keywords: &["Authorization", "authorization", "AUTHORIZATION"],
        pattern: r#"(?i)authorization\\*["']?[ \t]*[:=,][ \t]*\\*["']?(?:(?:bearer|token|bot|apikey|api-key)[ \t]+)?([A-Za-z0-9._~+/-]{8,}={0,2})"#,
        check: |v| is_secret_value(Name::Password, v, true),
    },
    Spec {
        name: "url",
        keywords: &["://"],
        pattern: r#"://[^\s/:@?#"'`<>\[\]]*:([^\s/@?#"'`<>]+)@"#,
        check: |v| {
            v.contains(char::is_alphanumeric)
                && !v.contains(MARK)
                && !is_interpolated(v)
                && !is_placeholder(v)
                && !is_password_word(v)
        },
    },
];

/// Names whose values are secrets, as words: written `api_key`, `api-key`, `apiKey`, `ApiKey`, `API_KEY`, `apikey`, ….
pub(super) const PASSWORDS: &[&[&str]] = &[&["password"], &["passwd"], &["passphrase"], &["pwd"]];
pub(super) const OTHERS: &[&[&str]] = &[
    &["secret"],
    &["token"],
    &["credential"],
    &["api", "key"],
    &["access", "key"],
    &["account", "key"],
    &["auth", "key"],
    &["private", "key"],
    &["signing", "key"],
    &["encryption", "key"],
];

/// What follows the word in a name that tells about a secret instead of holding one.
pub(super) const ABOUT: &[&str] = &[
    "id",
    "ids",
    "name",
    "names",
    "type",
    "types",
    "url",
    "urls",
    "uri",
    "path",
    "paths",
    "file",
    "files",
    "dir",
    "count",
    "counts",
    "len",
    "length",
    "size",
    "limit",
    "limits",
    "ttl",
    "expiry",
    "expires",
    "expiration",
    "at",
    "in",
    "arn",
    "ref",
    "refs",
    "version",
    "field",
    "header",
    "prefix",
    "suffix",
    "index",
    "format",
    "kind",
    "policy",
    "store",
    "manager",
    "provider",
    "label",
    "hint",
    "regex",
    "pattern",
    "checksum",
    "budget",
    "usage",
    "status",
    "error",
    "message",
    "class",
    "selector",
    "endpoint",
    "rotation",
    "algorithm",
    "encryption",
    "issuer",
    "audience",
    "scope",
];
