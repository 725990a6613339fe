//! Service tokens that are known by their prefix.

use super::value::{entropy, is_placeholder, wordiness};

/// The characters allowed after a prefix.
#[derive(Clone, Copy)]
pub(super) enum Body {
    Hex,
    /// `A-Z0-9`.
    Upper,
    /// `a-z0-9`.
    Lower,
    Alnum,
    /// Also `_`.
    Word,
    /// Also `_` and `-`.
    Slug,
    /// Also `_`, `-` and `.`.
    Dotted,
    /// Also `+`, `/` and `=`.
    Base64,
}
use Body::*;

impl Body {
    pub(super) fn has(self, b: u8) -> bool {
        match self {
            Hex => b.is_ascii_hexdigit(),
            Upper => b.is_ascii_uppercase() || b.is_ascii_digit(),
            Lower => b.is_ascii_lowercase() || b.is_ascii_digit(),
            Alnum => b.is_ascii_alphanumeric(),
            Word => b.is_ascii_alphanumeric() || b == b'_',
            Slug => b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'),
            Dotted => b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'),
            Base64 => b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+' | b'/' | b'='),
        }
    }
}

/// The tokens of a service: the prefixes, what follows them, and how long that is.
pub(super) struct Token {
    pub(super) service: &'static str,
    pub(super) prefixes: &'static [&'static str],
    pub(super) body: Body,
    pub(super) min: usize,
    pub(super) max: usize,
}

const MAX_TOKEN_BYTES: usize = 4096;

const fn token(service: &'static str, prefixes: &'static [&'static str], body: Body, min: usize, max: usize) -> Token {
    Token { service, prefixes, body, min, max }
}

pub(super) const TOKENS: &[Token] = &[
    // AI models.
    token("google", &["AQ.A"], Slug, 36, MAX_TOKEN_BYTES),
    token("google", &["1//0"], Slug, 36, MAX_TOKEN_BYTES),
    token("openai", &["sess-"], Alnum, 40, MAX_TOKEN_BYTES),
    token("huggingface", &["api_org_"], Alnum, 30, MAX_TOKEN_BYTES),
    token("nvidia", &["nvapi-"], Slug, 40, MAX_TOKEN_BYTES),
    token("tavily", &["tvly-"], Slug, 28, MAX_TOKEN_BYTES),
    token("firecrawl", &["fc-"], Hex, 32, 32),
    token("langsmith", &["lsv2_pt_", "lsv2_sk_"], Word, 32, MAX_TOKEN_BYTES),
    token("langsmith", &["ls__"], Hex, 32, 32),
    token("pinecone", &["pcsk_"], Word, 40, MAX_TOKEN_BYTES),
    token("cerebras", &["csk-"], Alnum, 40, MAX_TOKEN_BYTES),
    token("together", &["tgp_v1_"], Slug, 32, MAX_TOKEN_BYTES),
    token("fireworks", &["fw_"], Alnum, 22, 40),
    token("jina", &["jina_"], Alnum, 40, MAX_TOKEN_BYTES),
    token("voyage", &["pa-"], Slug, 40, 60),
    token("elevenlabs", &["sk_"], Hex, 48, 48),
    token("runpod", &["rpa_"], Alnum, 32, MAX_TOKEN_BYTES),
    token("e2b", &["e2b_"], Hex, 40, 40),
    token("bedrock", &["ABSKQmVkcm9ja0FQSUtleS"], Base64, 60, MAX_TOKEN_BYTES),
    token("bedrock", &["bedrock-api-key-"], Base64, 60, MAX_TOKEN_BYTES),
    token("wandb", &["wandb_v1_"], Word, 40, MAX_TOKEN_BYTES),
    token("browserbase", &["bb_live_", "bb_test_"], Slug, 20, MAX_TOKEN_BYTES),
    token("apify", &["apify_api_"], Alnum, 30, MAX_TOKEN_BYTES),
    token("cursor", &["crsr_", "key_"], Hex, 64, 64),
    token("braintrust", &["bt-st-"], Alnum, 40, MAX_TOKEN_BYTES),
    token("replicate", &["r8_"], Alnum, 37, MAX_TOKEN_BYTES),
    token("mem0", &["m0-"], Alnum, 38, 44),
    token("composio", &["ak_"], Slug, 20, 24),
    // Source code, builds and packages.
    token("gitlab", &["gloas-"], Hex, 64, 64),
    token("gitlab", &["glimt-", "glffct-", "glrtr-", "glwt-", "glsoat-", "glptt-", "gldt-"], Slug, 20, MAX_TOKEN_BYTES),
    token("gitlab", &["GR1348941"], Slug, 20, 20),
    token("bitbucket", &["ATBB"], Alnum, 28, 36),
    token("bitbucket", &["ATCTT3"], Base64, 60, MAX_TOKEN_BYTES),
    token("bitbucket", &["BBDC-"], Base64, 36, 60),
    token("atlassian", &["ATCTT3xFf", "ATSTT3xFf"], Base64, 40, MAX_TOKEN_BYTES),
    token("trello", &["ATTA"], Hex, 64, 72),
    token("gitea", &["gta_"], Hex, 40, 40),
    token("sourcegraph", &["sgp_", "sgs_", "slk_"], Word, 40, MAX_TOKEN_BYTES),
    token("sonar", &["sqp_", "sqa_", "squ_"], Hex, 40, 40),
    token("snyk", &["snyk_uat.", "snyk_sat."], Dotted, 30, MAX_TOKEN_BYTES),
    token("circleci", &["CCIPAT_", "CCIPRJ_"], Word, 40, MAX_TOKEN_BYTES),
    token("buildkite", &["bkua_", "bkaj_", "bkct_", "bkpt_", "bkat_"], Alnum, 32, MAX_TOKEN_BYTES),
    token("docker", &["dckr_oat_", "dckr_pat_"], Slug, 24, MAX_TOKEN_BYTES),
    token("artifactory", &["AKCp"], Alnum, 60, 90),
    token("artifactory", &["cmVmdGtu"], Alnum, 50, 60),
    token("rubygems", &["rubygems_"], Hex, 48, 48),
    token("crates-io", &["cio"], Alnum, 32, 32),
    token("nuget", &["oy2"], Lower, 43, 43),
    token("clojars", &["CLOJARS_"], Lower, 60, 60),
    token("hex-pm", &["hexpm_"], Alnum, 30, MAX_TOKEN_BYTES),
    token("npm", &["npm_"], Alnum, 36, 36),
    token("nx", &["nxp_"], Alnum, 32, MAX_TOKEN_BYTES),
    token("expo", &["expo_"], Slug, 36, MAX_TOKEN_BYTES),
    token("jsr", &["jsrp_", "jsrt_"], Alnum, 30, MAX_TOKEN_BYTES),
    // Keys of cloud providers.
    token("supabase", &["sbp_", "sbp_v0_"], Hex, 40, 40),
    token("supabase", &["sb_secret_"], Slug, 24, MAX_TOKEN_BYTES),
    token("netlify", &["nfp_", "nfc_", "nfo_", "nfu_", "nfb_"], Alnum, 32, MAX_TOKEN_BYTES),
    token("vercel", &["vcp_", "vci_", "vca_", "vcr_", "vck_"], Alnum, 24, MAX_TOKEN_BYTES),
    token("vercel", &["vercel_blob_rw_"], Word, 30, MAX_TOKEN_BYTES),
    token("render", &["rnd_"], Alnum, 26, 40),
    token("fly", &["fm1r_", "fm1a_", "fm2_"], Base64, 60, MAX_TOKEN_BYTES),
    token("fly", &["fo1_"], Slug, 40, 48),
    token("heroku", &["HRKU-"], Slug, 36, 70),
    token("cloudflare", &["v1.0-"], Slug, 120, MAX_TOKEN_BYTES),
    token("cloudflare", &["cfut_", "cfat_", "cfk_"], Slug, 36, MAX_TOKEN_BYTES),
    token("pulumi", &["pul-"], Hex, 40, 40),
    token(
        "doppler",
        &["dp.st.", "dp.pt.", "dp.ct.", "dp.sa.", "dp.scim.", "dp.audit.", "dp.said."],
        Dotted,
        38,
        MAX_TOKEN_BYTES,
    ),
    token("infisical", &["st."], Dotted, 60, 120),
    token("vault", &["hvr.", "hvs.", "hvb."], Slug, 24, MAX_TOKEN_BYTES),
    token("tailscale", &["tskey-"], Slug, 24, MAX_TOKEN_BYTES),
    token("digitalocean", &["dop_v1_", "doo_v1_", "dor_v1_", "doa_v1_"], Hex, 64, 64),
    token("planetscale", &["pscale_tkn_", "pscale_pw_", "pscale_oauth_"], Dotted, 32, MAX_TOKEN_BYTES),
    token("neon", &["napi_", "npg_"], Lower, 40, MAX_TOKEN_BYTES),
    token("neon", &["npg_"], Alnum, 12, 30),
    token("alibaba", &["LTAI"], Alnum, 16, 26),
    token("tencent", &["AKID"], Alnum, 32, 40),
    token("yandex", &["AQVN"], Slug, 35, 38),
    token("yandex", &["y0_", "y1_", "y2_", "y3_"], Slug, 50, MAX_TOKEN_BYTES),
    token("yandex", &["YCAJE", "YCM"], Slug, 20, 40),
    token("scaleway", &["SCW"], Upper, 17, 17),
    token("openshift", &["sha256~"], Slug, 40, 48),
    token("1password", &["ops_"], Base64, 100, MAX_TOKEN_BYTES),
    token("databricks", &["dapi", "dose", "dkea"], Hex, 32, 32),
    token("mongodb", &["mdb_sa_sk_"], Slug, 30, MAX_TOKEN_BYTES),
    token("railway", &["rw_Fe26."], Base64, 40, MAX_TOKEN_BYTES),
    token("deno", &["ddp_", "ddo_"], Alnum, 34, 40),
    token("aws-session", &["IQoJb3JpZ2luX2Vj", "FwoGZXIvYXdz", "FQoGZXIvYXdz"], Base64, 60, MAX_TOKEN_BYTES),
    // Work and documents.
    token("notion", &["ntn_"], Alnum, 40, 50),
    token("notion", &["secret_"], Alnum, 40, 50),
    token("linear", &["lin_oauth_", "lin_wh_"], Alnum, 32, MAX_TOKEN_BYTES),
    token("figma", &["figd_", "figo_", "figu_", "figr_", "figoh_"], Slug, 36, MAX_TOKEN_BYTES),
    token("postman", &["PMAK-"], Slug, 59, 59),
    token("postman", &["PMAT-"], Alnum, 24, 32),
    token("contentful", &["CFPAT-"], Slug, 40, 48),
    token("typeform", &["tfp_"], Dotted, 40, MAX_TOKEN_BYTES),
    token("readme", &["rdme_"], Lower, 70, 70),
    token("shortcut", &["sct_rw_", "sct_ro_"], Word, 30, MAX_TOKEN_BYTES),
    token("clickup", &["pk_"], Word, 36, 48),
    token("frameio", &["fio-u-"], Slug, 64, 64),
    token("hubspot", &["pat-na1-", "pat-na2-", "pat-eu1-", "pat-ap1-"], Slug, 32, 40),
    token("slack", &["xoxd-"], Base64, 40, MAX_TOKEN_BYTES),
    token("slack", &["xwfp-"], Slug, 30, MAX_TOKEN_BYTES),
    token("airtable", &["pat"], Dotted, 79, 79),
    token("calcom", &["cal_live_", "cal_test_"], Hex, 32, 32),
    // Mail, payments and messaging.
    token("resend", &["re_"], Word, 30, 40),
    token("brevo", &["xkeysib-", "xsmtpsib-"], Slug, 64, MAX_TOKEN_BYTES),
    token("mailgun", &["key-"], Hex, 32, 32),
    token("mailchimp", &["md-"], Slug, 22, 24),
    token("mailersend", &["mlsn."], Hex, 64, 64),
    token("square", &["sq0atp-", "sq0csp-", "sq0idp-"], Slug, 22, MAX_TOKEN_BYTES),
    token("square", &["EAAA"], Slug, 56, 70),
    token("facebook", &["EAA"], Alnum, 60, MAX_TOKEN_BYTES),
    token("instagram", &["IGAA", "IGQV"], Alnum, 60, MAX_TOKEN_BYTES),
    token("paypal", &["A21AA"], Slug, 60, MAX_TOKEN_BYTES),
    token("paypal", &["access_token$production$", "access_token$sandbox$"], Word, 16, 60),
    token("plaid", &["access-production-", "access-sandbox-", "access-development-"], Slug, 36, 36),
    token("stripe", &["sk_org_", "rk_org_"], Word, 20, MAX_TOKEN_BYTES),
    token("stripe", &["ek_live_", "ek_test_"], Alnum, 20, MAX_TOKEN_BYTES),
    token("paystack", &["sk_live_", "sk_test_"], Hex, 40, 40),
    token("checkout", &["sk_sbox_"], Lower, 20, MAX_TOKEN_BYTES),
    token("razorpay", &["rzp_live_", "rzp_test_"], Alnum, 14, 14),
    token("flutterwave", &["FLWSECK_TEST-", "FLWSECK-"], Slug, 12, MAX_TOKEN_BYTES),
    token("mollie", &["live_", "test_"], Alnum, 30, 30),
    token("gocardless", &["live_"], Base64, 40, 40),
    token("duffel", &["duffel_live_", "duffel_test_"], Slug, 43, 43),
    token("easypost", &["EZAK", "EZTK"], Alnum, 54, 54),
    token("shippo", &["shippo_live_", "shippo_test_"], Hex, 40, 40),
    token("shopify", &["shptka_", "shpua_"], Hex, 32, 32),
    token("paddle", &["pdl_live_apikey_", "pdl_sdbx_apikey_", "pdl_ntfset_"], Word, 30, MAX_TOKEN_BYTES),
    token("polar", &["polar_oat_", "polar_pat_"], Slug, 30, MAX_TOKEN_BYTES),
    token("clerk", &["sk_live_", "sk_test_"], Alnum, 30, MAX_TOKEN_BYTES),
    token("stytch", &["secret-live-", "secret-test-"], Base64, 30, MAX_TOKEN_BYTES),
    token("workos", &["sk_a2V5X"], Base64, 30, MAX_TOKEN_BYTES),
    token("telnyx", &["KEY0"], Word, 40, 70),
    // Monitoring and analytics.
    token("new-relic", &["NRAK-", "NRJS-", "NRII-", "NRIQ-", "NRAA-", "NRRA-", "NRSP-", "NRBR-"], Slug, 18, 64),
    token("posthog", &["phx_", "phs_", "pha_", "phr_"], Word, 32, 60),
    token("sentry", &["sntrya_", "sntryi_"], Base64, 36, MAX_TOKEN_BYTES),
    token("dynatrace", &["dt0c01.", "dt0s16.", "dt0s01.", "dt0s08."], Dotted, 60, MAX_TOKEN_BYTES),
    token("honeycomb", &["hcaik_", "hcbik_", "hcaic_", "hcxik_", "hcxmk_", "hcamk_"], Alnum, 30, MAX_TOKEN_BYTES),
    token("axiom", &["xaat-", "xapt-"], Slug, 36, 36),
    token("grafana", &["eyJrIjoi"], Base64, 60, MAX_TOKEN_BYTES),
    token("prefect", &["pnu_", "pnb_"], Alnum, 36, MAX_TOKEN_BYTES),
    token("dbt", &["dbtc_", "dbtu_", "dbts_"], Base64, 36, MAX_TOKEN_BYTES),
    token("statsig", &["secret-"], Alnum, 36, 50),
    token("segment", &["sgp_"], Alnum, 64, 64),
    token("adafruit", &["aio_"], Alnum, 28, 28),
    token("infracost", &["ico-"], Alnum, 32, 32),
    token("datadog", &["ddapp_", "ddpat_"], Alnum, 34, MAX_TOKEN_BYTES),
    token("pagerduty", &["pdus+_", "pdeu+_"], Base64, 20, MAX_TOKEN_BYTES),
    token("logfire", &["pylf_v1_"], Word, 40, MAX_TOKEN_BYTES),
    token("langfuse", &["sk-lf-"], Slug, 30, 60),
    token("flagsmith", &["ser."], Alnum, 22, 22),
    token("checkly", &["cu_"], Hex, 32, 32),
    token("mapbox", &["sk.eyJ"], Dotted, 60, MAX_TOKEN_BYTES),
    token("nostr", &["nsec1"], Lower, 58, 58),
    token("bip32", &["xprv", "tprv", "yprv", "zprv"], Alnum, 100, 112),
    token("minisign", &["RWRTY0Iy"], Base64, 100, MAX_TOKEN_BYTES),
    token("twitter", &["AAAAAAAAAAAAAAAAAAAAA"], Base64, 60, MAX_TOKEN_BYTES),
    token("twitch", &["oauth:"], Lower, 30, 30),
    token("harness", &["pat.", "sat."], Dotted, 68, 70),
    token("settlemint", &["sm_aat_", "sm_pat_", "sm_sat_"], Alnum, 16, 16),
    token("age-plugin", &["AGE-PLUGIN-"], Slug, 50, MAX_TOKEN_BYTES),
];

impl Token {
    /// The end of a token that begins at `at`.
    pub(super) fn end(&self, bytes: &[u8], at: usize) -> Option<usize> {
        // Hashes and addresses contain the short prefixes by chance.
        if at > 0 && matches!(bytes[at - 1], b'-' | b'+' | b'/') && self.prefixes[0].len() < 5 {
            return None;
        }
        let prefix =
            self.prefixes.iter().filter(|prefix| bytes[at..].starts_with(prefix.as_bytes())).max_by_key(|p| p.len())?;
        let start = at + prefix.len();
        let len = bytes[start..].iter().take(MAX_TOKEN_BYTES).take_while(|b| self.body.has(**b)).count();
        // A full stop or a dash ends a sentence.
        let len = len - bytes[start..start + len].iter().rev().take_while(|b| matches!(b, b'.' | b'-')).count();
        if !(self.min..=self.max).contains(&len) {
            return None;
        }
        let body = std::str::from_utf8(&bytes[start..start + len.min(256)]).ok()?;
        let digits = body.bytes().filter(u8::is_ascii_digit).count();
        let words = if prefix.len() < 5 { 0.75 } else { 0.9 };
        (digits > 0 && entropy(body) >= 2.5 && wordiness(body) < words && !is_placeholder(body)).then_some(start + len)
    }
}
