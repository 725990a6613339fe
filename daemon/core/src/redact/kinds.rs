//! For tests: made-up secrets in the text that tools output, more than 900 kinds, each generated from a seed.

/// What a kind of secret consists of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Make {
    /// Letters and digits.
    Alnum(usize),
    Hex(usize),
    /// Lower-case letters and digits.
    Lower(usize),
    /// Capitals and digits.
    Upper(usize),
    /// `A-Za-z0-9_-`.
    Slug(usize),
    Base64(usize),
    /// Like a chosen password: letters, digits and one or two symbols.
    Password,
    /// Like a chosen password, with the symbols that end an address.
    Address,
    /// Three or four words joined by dashes, no digit.
    Words,
    /// A single long word in lower case, no digit.
    Word,
    /// Only digits.
    Digits(usize),
    /// `user:password` in base64.
    Login,
    /// Lines of a private key in base64.
    KeyLines(usize),
    /// The same after a fixed head.
    KeyAfter(&'static str, usize),
    /// A whole file, in base64.
    Wrapped(&'static str),
    Uuid,
    Telegram,
    Discord,
    Phrase,
    /// A secret access key.
    Aws,
    /// Like a chosen password: one or two words with a year, a number or a symbol.
    Human,
    /// The same without a symbol.
    Bare,
    /// As `Password`, without the symbols that commands and addresses interpret.
    Plain,
    /// All symbols but quotes and backslashes.
    Salt(usize),
    /// `A-Z2-7`.
    Base32(usize),
    /// Lines of 32 hex digits.
    HexLines(usize),
    Jwt,
    /// The token with which a machine joins a cluster.
    Kubeadm,
}
use Make::*;

use self::{
    code::CODE,
    commands::COMMANDS,
    files::FILES,
    rest::OTHER_FORMS,
    table::{PLACES, PREFIXES},
};

mod code;
mod commands;
mod files;
mod rest;
mod table;

pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn text(&mut self, alphabet: &str, len: usize) -> String {
        let alphabet: Vec<char> = alphabet.chars().collect();
        (0..len).map(|_| alphabet[self.roll(alphabet.len())]).collect()
    }

    fn words(&mut self, count: usize, joint: &str) -> String {
        const WORDS: &[&str] = &[
            "correct", "horse", "battery", "staple", "purple", "monkey", "winter", "garden", "silver", "rocket",
            "coffee", "island", "marble", "dragon", "falcon", "harbor", "velvet", "canyon", "pepper", "thunder",
            "orchid", "lantern", "meadow", "copper", "walnut", "breeze",
        ];
        let words: Vec<&str> = (0..count).map(|_| WORDS[self.roll(WORDS.len())]).collect();
        words.join(joint)
    }

    fn capital(&mut self) -> String {
        let word = self.words(1, "");
        word[..1].to_uppercase() + &word[1..]
    }
}

const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Draws until there is a capital, a small letter and a digit, as in real secrets of that length.
fn mixed(dice: &mut Dice, alphabet: &str, len: usize) -> String {
    loop {
        let text = dice.text(alphabet, len);
        let has = |test: fn(&u8) -> bool| !alphabet.bytes().any(|b| test(&b)) || text.bytes().any(|b| test(&b));
        if has(u8::is_ascii_digit) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) {
            return text;
        }
    }
}

impl Make {
    pub(super) fn make(self, dice: &mut Dice) -> String {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let lower = "abcdefghijklmnopqrstuvwxyz0123456789";
        match self {
            Alnum(len) => mixed(dice, ALNUM, len),
            Hex(len) => mixed(dice, "0123456789abcdef", len),
            Lower(len) => mixed(dice, lower, len),
            Upper(len) => mixed(dice, &lower.to_uppercase(), len),
            Slug(len) => mixed(dice, &(ALNUM.to_owned() + "_-"), len - 2) + &dice.text(ALNUM, 2),
            Base64(len) => {
                let equals = [0, 2, 1][len % 3].min(2);
                mixed(dice, &(ALNUM.to_owned() + "+/"), len - equals) + &"=".repeat(equals)
            }
            Password => {
                let len = 5 + dice.roll(6);
                mixed(dice, ALNUM, len) + &dice.text("!@#%^*?+~", 1) + &mixed(dice, ALNUM, 4)
            }
            Address => mixed(dice, ALNUM, 6) + &dice.text("/#@?!", 1) + &mixed(dice, ALNUM, 5),
            Words => {
                let count = 3 + dice.roll(2);
                dice.words(count, "-")
            }
            Word => dice.words(2, "") + &dice.words(1, ""),
            Digits(len) => dice.text("0123456789", len),
            Login => STANDARD.encode(format!("{}:{}", dice.text("abcdefgh", 6), mixed(dice, ALNUM, 12))),
            KeyLines(count) => {
                let mut lines: Vec<String> = (0..count).map(|_| mixed(dice, &(ALNUM.to_owned() + "+/"), 64)).collect();
                lines.push(mixed(dice, ALNUM, 26) + "==");
                lines.join("\n")
            }
            KeyAfter(head, count) => {
                let lines = KeyLines(count).make(dice);
                head.to_owned() + &lines[head.len()..]
            }
            Wrapped(text) => {
                let body = text.replace("@@", &mixed(dice, ALNUM, 24)).replace("##", &KeyLines(6).make(dice));
                STANDARD.encode(body)
            }
            Uuid => {
                let mut hex = |len| dice.text("0123456789abcdef", len);
                format!("{}-{}-4{}-a{}-{}", hex(8), hex(4), hex(3), hex(3), hex(12))
            }
            Telegram => dice.text("123456789", 10) + ":AA" + &mixed(dice, ALNUM, 33),
            Discord => {
                "MT".to_owned()
                    + &dice.text("AEIMQUYcgk", 1)
                    + &mixed(dice, ALNUM, 23)
                    + ".G"
                    + &mixed(dice, ALNUM, 5)
                    + "."
                    + &mixed(dice, ALNUM, 38)
            }
            Aws => mixed(dice, &(ALNUM.to_owned() + "+/"), 40),
            Phrase => dice.words(12, " "),
            Human => match dice.roll(4) {
                0 => dice.capital() + &dice.text("2", 1) + &dice.text("0123456789", 3) + &dice.text("!#*?", 1),
                1 => dice.words(1, "") + &dice.text("123456789", 2) + "-" + &dice.capital(),
                2 => dice.words(2, "") + &dice.text("123456789", 2),
                _ => {
                    dice.capital().replacen(['a', 'e', 'o'], "0", 1)
                        + &dice.text("!#*?", 1)
                        + &dice.text("0123456789", 4)
                }
            },
            Bare => dice.capital() + &dice.words(1, "") + &dice.text("123456789", 2),
            Plain => mixed(dice, ALNUM, 8) + &dice.text("!^*+~", 1) + &mixed(dice, ALNUM, 4),
            Salt(len) => mixed(dice, &(ALNUM.to_owned() + "!#$%^&*()-_=+[]{};:<>|,./?~"), len),
            Base32(len) => dice.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", len),
            HexLines(count) => {
                let lines: Vec<String> = (0..count).map(|_| mixed(dice, "0123456789abcdef", 32)).collect();
                lines.join("\n")
            }
            Jwt => {
                format!("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ{}.{}", mixed(dice, ALNUM, 80), mixed(dice, ALNUM, 43))
            }
            Kubeadm => mixed(dice, lower, 6) + "." + &mixed(dice, lower, 16),
        }
    }
}

/// Whether a substantial part of the secret is still readable.
fn leaks(masked: &str, secret: &str) -> bool {
    secret.split(['\n', ' ']).filter(|line| line.len() >= 6).any(|line| {
        let part = (line.len() * 7).div_ceil(10);
        masked.contains(&line[..part]) || masked.contains(&line[line.len() - part..])
    })
}

/// A text as a tool outputs it: unchanged, in a diff, after line numbers or paths, among other lines, in a JSON string.
fn shown(text: &str, dice: &mut Dice) -> (&'static str, String) {
    let each = |lead: &mut dyn FnMut(usize) -> String| -> String {
        let lines: Vec<String> = text.split('\n').enumerate().map(|(number, line)| lead(number) + line).collect();
        lines.join("\n")
    };
    match dice.roll(8) {
        0 => ("plain", text.to_owned()),
        1 => ("added", each(&mut |_| "+".into())),
        2 => ("removed", each(&mut |_| "-".into())),
        3 => ("numbered", each(&mut |number| format!("{:>6}→", number + 9))),
        4 => ("numbered with tabs", each(&mut |number| format!("{:>6}\t", number + 9))),
        5 => ("among lines", format!("Reading settings …\n\n{text}\n\nDone in 1.2 s.\n")),
        6 => ("in JSON", serde_json::Value::from(text).to_string()),
        _ => ("indented", each(&mut |_| "    ".into())),
    }
}

/// The kinds whose secret is not masked, with how it was shown and what remained, and the number of kinds.
pub(super) fn unmasked(seed: u64, mask: &dyn Fn(&str) -> String) -> (Vec<(String, String)>, usize) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut left = Vec::new();
    let mut try_one = |name: String, frame: &str, secret: String, dice: &mut Dice| {
        let text = frame.replacen("@@", &secret, 1);
        let (how, text) = shown(&text, dice);
        let masked = mask(&text);
        if leaks(&masked, &secret) {
            left.push((format!("{name}, {how}"), masked));
        }
    };
    let places = || [PLACES, COMMANDS, FILES, CODE, OTHER_FORMS].into_iter().flatten();
    for (name, frame, make) in places() {
        let secret = make.make(&mut dice);
        try_one((*name).to_owned(), frame, secret, &mut dice);
    }
    for (prefix, make) in PREFIXES {
        let secret = (*prefix).to_owned() + &make.make(&mut dice);
        let frame = ["see @@", "\"@@\"", "x = @@", "(@@)", "https://a.test/@@"][dice.roll(4)];
        try_one((*prefix).to_owned(), frame, secret, &mut dice);
    }
    let secret = Discord.make(&mut dice);
    try_one("discord bot".into(), "client.login('@@')", secret, &mut dice);
    let secret = Telegram.make(&mut dice);
    try_one("telegram bot".into(), "bot @@ is up", secret, &mut dice);
    let secret = mixed(&mut dice, ALNUM, 3) + "8Q~" + &Slug(34).make(&mut dice);
    try_one("azure secret".into(), "got @@ back", secret, &mut dice);
    let secret = Hex(32).make(&mut dice) + "-us14";
    try_one("mailchimp".into(), "got @@ back", secret, &mut dice);
    (left, places().count() + PREFIXES.len() + 4)
}
