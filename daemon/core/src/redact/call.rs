//! Secrets that the functions of libraries take by their place: `SetBasicAuth(user, "X")`, `getConnection(url, user, "X")`.

use std::ops::Range;

use super::{
    MARK,
    assign::quote_at,
    name::Name,
    value::{Trust, is_code, is_password_word, is_secret, is_stopword},
};

/// What an argument holds.
#[derive(Clone, Copy, PartialEq)]
enum Holds {
    /// A password, which people choose.
    Password,
    /// A key, which machines make.
    Key,
    /// `user:X`.
    Login,
}
use Holds::*;

/// Functions that take a secret.
pub(super) struct Call {
    pub(super) names: &'static [&'static str],
    /// How many arguments stand before it.
    place: usize,
    holds: Holds,
}

/// The last argument, however many there are.
const LAST: usize = usize::MAX;

/// How much of a call is read.
const CALL_MAX: usize = 400;

const fn call(names: &'static [&'static str], place: usize, holds: Holds) -> Call {
    Call { names, place, holds }
}

pub(super) const CALLS: &[Call] = &[
    call(
        &[
            "BasicAuth",
            "basic_auth",
            "basicAuth",
            "DigestAuth",
            "ProxyAuth",
            "PasswordCredentials",
            "PasswordAuthentication",
            "PasswordAuthenticationToken",
            "NetworkCredential",
            "AWSCredentials",
            "AwsBasicCredentials.create",
            "BasicSessionCredentials",
            "NewStaticCredentials",
            "NewStaticCredentialsProvider",
            "PasswordCredential",
            "UserPassword",
            ".login",
            "->login",
            ".auth",
            "WiFi.begin",
            "WiFiMulti.addAP",
            "Credentials::new",
            "Credentials.basic",
            "Credentials.of",
            "AuthTokens.basic",
            "BasicCredentials",
            "auth_basic",
            "authenticate",
            "addBasicAuth",
            "setBasicAuth",
            "http_auth",
            "authorization_basic",
        ],
        1,
        Password,
    ),
    call(&["auth=", "auth = "], 1, Password),
    call(
        &[
            "PlainAuth",
            "getConnection",
            "PDO",
            "mysqli",
            "mysqli_connect",
            "mysql_connect",
            "mysql.connect",
            "MySQLdb.connect",
            "DBI->connect",
            "ftp_login",
            "ssh2_auth_password",
            "imap_open",
            "ClientSecretCredential",
            "create_user",
            "create_superuser",
            "oci_connect",
            "pg_connect",
            "Sequel.connect",
            "dataSource",
        ],
        2,
        Password,
    ),
    call(
        &["ssh.Password", "SecretString::from", "SecretString::new", "Secret::new", "bearer_auth", "SecretStr"],
        0,
        Password,
    ),
    call(
        &["keyring.set_password", "Credentials", ".store", "ks.load", "keyStore.load", "KeyStore.load"],
        LAST,
        Password,
    ),
    call(&["CURLOPT_USERPWD", "CURLOPT_PROXYUSERPWD"], 0, Login),
    call(&["btoa", "Buffer.from", "b64encode", "base64_encode", "encodeToString", "strict_encode64"], 0, Login),
    call(&["jwt.sign", "jwt.encode", "jwt.verify", "jwt.decode", "JWT.encode", "createHmac", "hash_hmac"], 1, Key),
    call(
        &[
            "from_secret",
            "from_base64_secret",
            "Fernet",
            "Wallet",
            "SymmetricSecurityKey",
            "hmac.new",
            "hmacShaKeyFor",
            "HMAC256",
            "HMAC512",
            "SecretKeySpec",
            "cookieParser",
            "keys: ",
        ],
        0,
        Key,
    ),
];

/// Where the literal that opens with a quote at `at` is, and where the text goes on behind it.
fn literal(text: &str, at: usize, limit: usize) -> Option<(Range<usize>, usize)> {
    let bytes = &text.as_bytes()[..limit];
    let (quote, start) = quote_at(bytes, at)?;
    let end = quote.end(bytes, start);
    Some((start..end, (end + quote.depth + 1).min(limit)))
}

fn is_given(holds: Holds, value: &str) -> bool {
    let name = value.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    if name
        || is_stopword(value)
        || is_password_word(value)
        || value.contains(MARK)
        || value.starts_with(['-', '/', '<', '[', '{', '(', '$'])
    {
        return false;
    }
    match holds {
        Key => !is_code(value) && is_secret(Name::Other, value, true, Trust::Option),
        _ => is_secret(Name::Password, value, true, Trust::Option),
    }
}

impl Call {
    /// The secret of a call whose name ends at `at`.
    pub(super) fn secret(&self, text: &str, at: usize) -> Option<Range<usize>> {
        let limit = text.floor_char_boundary((at + CALL_MAX).min(text.len()));
        let bytes = &text.as_bytes()[..limit];
        let mut at = at;
        let closes = match bytes.get(at)? {
            b'(' | b'[' => true,
            // Where brackets may be left out.
            b' ' if quote_at(bytes, at + 1).is_some() => false,
            // A constant among the arguments.
            b',' if self.holds == Login => {
                at -= 1;
                false
            }
            _ => return None,
        };
        at += 1;
        let mut number = if bytes.get(at) == Some(&b',') { usize::MAX } else { 0 };
        let mut depth = 0;
        // The literal of the argument that is read.
        let mut seen: Option<Range<usize>> = None;
        while at < limit {
            if let Some((range, next)) = literal(text, at, limit) {
                seen = seen.or(Some(range));
                at = next;
                continue;
            }
            match bytes[at] {
                b',' if depth == 0 => {
                    if number == self.place {
                        break;
                    }
                    number = number.wrapping_add(1);
                    seen = None;
                }
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' if depth > 0 => depth -= 1,
                b')' | b']' | b'}' | b';' => break,
                b'\n' if !closes => break,
                _ => {}
            }
            at += 1;
        }
        let here = number == self.place || self.place == LAST && number >= 1 && bytes.get(at) == Some(&b')');
        let range = seen.filter(|_| here)?;
        let value = &text[range.clone()];
        let start = match self.holds {
            Login => value.find(':').filter(|at| *at > 0)? + 1,
            _ => 0,
        };
        is_given(self.holds, &value[start..]).then_some(range.start + start..range.end)
    }
}
