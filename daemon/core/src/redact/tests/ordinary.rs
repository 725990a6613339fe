//! Text that is no secret although a rule examines it.

use super::{alnum, hex};

/// Texts that are no secret although a rule examines them.
pub(super) fn near_misses() -> Vec<String> {
    let h40 = hex(40);
    let a36 = alnum(36);
    let misses = [
        // Shapes: part of a word, too short, wrong alphabet, the example from the manual.
        "sk-ant-short",
        "task-ant-abcdefghijklmnopqrstuvwxyz",
        "pk-lf-0a1b2c3d-4e5f-6789-abcd-ef0123456789",
        "sk-lf-...",
        "class=\"sk-cube-grid sk-fading-circle\"",
        "sk-proj-name",
        "sk-abcabcabcabcabcabcabcabcabcabcabcabc",
        "gsk_model, xai-org/grok, pplx-api, r8_unorm, r8_g8_b8_a8",
        &["AK", "IAIOSFODNN7", "EXAMPLE"].concat(),
        "AKIA, ASIA and ABIA",
        "aws_secret_access_key = \"not set\"",
        "aws_secret_access_key = ${AWS_SECRET}",
        &["gh", "p_", &a36[..20]].concat(),
        &["weigh", "p_", &a36].concat(),
        "github_pat_prefix",
        "glpat-your-token",
        "xoxb-your-token-goes-here",
        "https://hooks.slack.com/services/T00/B00/X",
        "https://discord.com/api/webhooks/123/abc",
        "sk_test_key",
        "[features]\nauth = [\n    \"dep:oauth2\",\n    \"dep:url\",\n]",
        "whsec_test",
        "npm_config_registry npm_lifecycle_event npm_package_dependencies_typescript",
        "pypi-publish",
        "hf_hub_download(repo_id)",
        "AIzaShort",
        "ya29.x",
        "msg.payload.length SG.x.y",
        "TASK0123456789abcdef0123456789abcdef",
        "dop_v1_abc",
        "sk-or-swim sk-or-v1-short",
        "xapp-1-short xoxp-1",
        "GOCSPX-short SG.short.short",
        "ATATT3xFf dckr_pat_short sntrys_short",
        "AGE-SECRET-KEY-1SHORT pypi-AgEshort SK0123456789 SKa",
        "hvs.get, glsa_abc, lin_api_x, shpat_00, dapi_url",
        "eyJhbGciOi",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
        "if text.starts_with(\"-----BEGIN RSA PRIVATE KEY-----\") {",
        "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf9Cnz\n-----END PUBLIC KEY-----",
        "const B = \"-----BEGIN PRIVATE KEY-----\"; const E = \"-----END PRIVATE KEY-----\";",
        // Phrases that lead to no value.
        "Key Content            : Absent",
        "Unseal Key 1: (hidden)",
        "echo \"::add-mask::$TOKEN\"",
        "AUTH PLAIN LOGIN CRAM-MD5, quote PASS password",
        "a1 LOGIN bob@a.test password",
        "connect scott/tiger@db, CONNECT a.test:443 HTTP/1.1, conn a/b",
        "user default on >password ~* +@all",
        "bob : EAP \"password\"",
        "dovecot: bob:{PLAIN}password",
        "[smtp.test]:587 bob:password",
        "NEO4J_AUTH=neo4j/password",
        "ORDER BY created_at2;",
        "WITH mysql_native_password BY 'password'",
        "django-insecure-",
        "define('AUTH_KEY', 'put your unique phrase here');",
        "code_verifier = generate_verifier()",
        "SAMLResponse=saml_response",
        "accounts: [process.env.PRIVATE_KEY]",
        "\"keyName\": \"key1\",",
        "AKIA and ASIA keys",
        "PASSWORD elastic = changeme",
        "OK AUTH plain",
        "127.0.0.1:6379> SET session:token password",
        "handler.bind(this, 'click')",
        "new Client('AC', token)",
        "sonar.login=admin",
        "password\nV 8\nhidden",
        "traefik.http.middlewares.auth.basicauth.users=bob:password",
        "/msg NickServ IDENTIFY password",
        "WIFI:T:nopass;S:Guest;;",
        "$USER1$=/usr/lib/nagios/plugins",
        "IDENTIFIED BY PASSWORD;",
        "an API key is required, the access token is refreshed, the secret key is rotated",
        // Authorization headers without a secret.
        "Authorization: Bearer $TOKEN",
        "Authorization: Bearer ${TOKEN}",
        "Authorization: Bearer <token>",
        "Authorization: Bearer YOUR_API_KEY_HERE",
        "'Authorization': `Bearer ${token}`",
        "\"Authorization\": f\"Bearer {self.token}\"",
        "authorization: required for administrators",
        "basic understanding-of-the-system Basic internationalization",
        "the bearer authentication-middleware2 rejects",
        // URLs without a secret.
        "https://host:8080/path@x",
        "http://localhost:3000, mail@example.com",
        "git@github.com:owner/repo.git",
        "postgres://user:password@localhost/db",
        "postgres://$USER:$PASS@localhost/db",
        "postgres://{user}:{password}@{host}/db",
        "postgres://<user>:<password>@host",
        "https://en.wikipedia.org/wiki/Foo:Bar?x=a@b",
        // Assignments without a secret.
        "token = getToken()",
        "token = tokenizer2.nextToken2(base64)",
        "password: string",
        "password: Option<String>,",
        "const API_KEY = process.env.API_KEY",
        "const API_KEY = process.env.S3_API_KEY_V2!",
        "secret: ${{ secrets.DEPLOY_KEY_2024 }}",
        "secret_name = \"my-app\"",
        "secretName: \"prod-db-k8s-a1b2c3d4e5f6\"",
        "token_count=12345678",
        "max_tokens: 200000, input_tokens=12345678901234",
        "\"token_type\": \"urn:ietf:params:oauth:token-type:access_token\"",
        "token_url = \"https://auth.example.com/oauth2/v1/token\"",
        "password_file: /run/secrets/db_password_v2",
        "PWD=/home/user/project1/src2/x3",
        "OLDPWD=/home/user",
        "password = \"changeme123456\"",
        "password: \"Enter your password\"",
        "API_KEY=your-api-key-1234567890",
        "API_KEY=xxxxxxxxxxxxxxxxxxxx",
        "API_KEY=<your key>",
        "client_secret=$(cat secret.txt)",
        "client_secret: \"oauth2-client-v1-prod\"",
        "secretsmanager: arn:aws:secretsmanager:us-east-1:123456789012:secret:x-AbCdEf",
        "if token == \"abcDEF123456ghiJKL\" {}",
        "\"js-tokens\": \"^3.0.0 || ^4.0.0\"",
        "\"jsonwebtoken\": \"^9.0.2\"",
        "tokenizers==0.15.2+cu118.dev20240101",
        "nextPageToken: \"CAUQAA9f8e7d6c5b\"",
        "Ok(ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv })",
        "let traffic_secret_expander = TLS13_CHACHA20_POLY1305_SHA256_INTERNAL;",
        "pub const DOT11_WPS_PASSWORD_ID_DEFAULT: DOT11_WPS_DEVICE_PASSWORD_ID = 0i32;",
        "pub const STATUS_WRONG_PASSWORD_CORE: NTSTATUS = 0xC0000149_u32 as _;",
        "pub const MsV1_0ChangePassword: MSV1_0_PROTOCOL_MESSAGE_TYPE = 5i32;",
        "#password_encryption = scram-sha-256",
        "def sign(self, private_key: ed25519.Ed25519PrivateKey):",
        "credentials._private_key_pkcs12 = private_key_pkcs12",
        "\"Authorization\": \"AWS4-HMAC-SHA256 Credential=",
        "https://***:***@proxy",
        "test api::token::v2::parse_id_token3 ... ok",
        // Random, but nothing marks it as secret.
        &format!("commit {h40}"),
        "550e8400-e29b-41d4-a716-446655440000",
        &format!("\"integrity\": \"sha512-{}==\"", alnum(86)),
        &format!("checksum = \"{}\"", hex(64)),
        &alnum(4000),
    ];
    misses.map(str::to_owned).into()
}

pub(super) const CODE: &str = r##"
// Of Rust code
pub async fn login(&self, password: &str) -> Result<Token, AuthError> {
    let token = self.client.post(format!("{}/oauth2/token", self.base)).bearer_auth(&self.token).send().await?;
    let secret: SecretString = std::env::var("LANGFUSE_SECRET_KEY").map(SecretString::from)?;
    tracing::debug!(token_len = token.len(), api_key_present = self.api_key.is_some(), "signed in");
    if token == Token::default() { return Err(AuthError::Credential { token_type: TokenType::Bearer2 }) }
    Ok(Token { api_key: config.api_key_v2.clone(), password_hash: argon2id::hash(password)?, token })
}
# Python
API_KEY = os.environ["OPENAI_API_KEY"]
tokenizer = AutoTokenizer.from_pretrained("bert-base-uncased", token=hf_token)
tokens: list[int] = tokenizer.encode(text, add_special_tokens=False, max_length=4096)
headers = {"Authorization": f"Bearer {api_key}", "x-api-key": settings.ANTHROPIC_API_KEY_2}
def check(password: str = None, secret_key: Optional[str] = None, token: str | None = DEFAULT_TOKEN_V2) -> bool: ...
// Of TypeScript code
const { token, refreshToken: refreshToken2 } = await getServerSession(authOptions2);
interface Props { apiKey?: string; accessToken: AccessTokenV2; credentials: 'include' | 'same-origin' }
const client = new Client({ apiKey: process.env.API_KEY!, secretAccessKey: creds.secretAccessKey2 });
fetch(`${base}/v1/x?token=${encodeURIComponent(token)}`, { headers: { Authorization: "Bearer " + token } });
// Of Go code
secretKeyRef := &corev1.SecretKeySelector{Key: "password", LocalObjectReference: ref}
token, err := jwt.ParseWithClaims(tokenString, &Claims{}, func(t *jwt.Token) (any, error) { return key, nil })
golang.org/x/oauth2 v0.21.0 h1:tsimM75w1tF/uws5rbeHzIWxEqelMehnc+iW793zsZs=
# Shell, YAML, lock files
export TOKEN="$(gh auth token)"; curl -u "$USER:$PASSWORD" -H "Authorization: token $GITHUB_TOKEN" "$URL"
env: { GITHUB_TOKEN: "${{ secrets.GITHUB_TOKEN }}", password: !vault, secretName: tls-cert-2024 }
  token: {{ .Values.auth.token2 | b64enc }}
  resolution: {integrity: sha512-RdJUflcE3cUzKiMqQgsCu06FPu9UdIJO0beYbPhHN4k6apgJtifcoCtT9bcxOpYBtpD2kCM6Sbzg4CausW/PKQ==}
js-tokens@4.0.0: "node_modules/js-tokens": { "version": "4.0.0", "resolved": "https://registry.npmjs.org/js-tokens/-/js-tokens-4.0.0.tgz" }
-- SQL
CREATE USER app WITH PASSWORD :'password'; SELECT token_hash, secret_id FROM api_keys WHERE token_hash = $1;
/* Java, C */
private static final String PASSWORD_PATTERN = "^(?=.*[0-9])(?=.*[a-z])(?=.*[A-Z]).{8,}$";
char *token = strtok_r(buf2, ",", &save); size_t token_len = strlen(token); enum token_kind kind = TOKEN_INT64_LITERAL;
"##;

/// Code, settings and prose that mention passwords but contain none.
pub(super) const MENTIONS: &str = r##"
password: string
password?: string | undefined;
if (password === confirm) return;
if (user.password !== hash(input.password, user.salt)) throw new Error("wrong password");
const password = getPassword();
const { password, confirmPassword } = req.body;
let password = rpassword::prompt_password("Password: ")?;
password = input("Enter password: ")
password = getpass.getpass()
return await bcrypt.compare(password, user.passwordHash);
setPassword(event.target.value)
const [password, setPassword] = useState("");
<input type="password" name="password" id="password" placeholder="Your password" autocomplete="current-password" />
<label for="password">Password</label>
<TextField label="Password" type="password" value={password} onChange={handlePasswordChange} />
password_field = page.find_by_id("password")
page.getByLabel("Password").fill(user.password)
await page.fill("#password", process.env.TEST_PASSWORD)
driver.find_element(By.ID, "password").send_keys(password)
client.SetBasicAuth(user, password)
req.SetBasicAuth(cfg.Username, cfg.Password)
auth=(username, password)
requests.get(url, auth=HTTPBasicAuth(USER, PASSWORD))
DriverManager.getConnection(url, user, password);
DriverManager.getConnection("jdbc:h2:mem:test", "sa", "");
new UsernamePasswordCredentials(username, password)
server.login(username, password)
db.auth("app", passwordPrompt())
jwt.sign(payload, process.env.JWT_SECRET, { expiresIn: "1h" })
jwt.verify(token, publicKey, { algorithms: ["RS256"] })
crypto.createHmac("sha256", secret).update(body).digest("hex")
hmac.new(key, msg, hashlib.sha256)
Buffer.from("hello: world").toString("base64")
new PDO($dsn, $user, $password);
new mysqli($host, $user, $password, $database);
session({ secret: process.env.SESSION_SECRET, resave: false })
echo "$PASSWORD" | docker login -u "$USER" --password-stdin registry.test
echo "${{ secrets.TOKEN }}" | gh auth login --with-token
cat token.txt | docker login --password-stdin
echo "done" | tee out.log
mysql -u root -p shop
docker login -u ci --password-stdin < token.txt
psql --no-password -U app
restic --password-file /etc/restic/password -r /srv backup
tool --password-file path/to/file --token-file ./token
ssh-keygen -t ed25519 -N "" -f id_ed25519
args: ["-p", "8080", "--password-file", "/run/secrets/db"]
args: ["-p", "my-project", "--token", "$(TOKEN)"]
cargo run -p daemon --bin cc-langfused
passwords: [] # none
tokens: [a, b, c]
password: ${DB_PASSWORD}
password: "{{ vault_db_password }}"
password: !vault |
  password: null
  passwordSecret: db-credentials
  existingSecret: shop-db-auth
DB_PASSWORD_FILE=/run/secrets/db_password
PASSWORD_MIN_LENGTH=12
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [{"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"}]
password_hash VARCHAR(255) NOT NULL,
CREATE TABLE users (id INT, name TEXT, password TEXT NOT NULL);
INSERT INTO users (name, password) VALUES ($1, $2);
INSERT INTO users (name, password) VALUES (?, crypt(?, gen_salt('bf')));
SELECT name, password FROM users WHERE name = 'bob';
ALTER USER app WITH PASSWORD :'password';
CREATE USER app IDENTIFIED BY :password;
GRANT SELECT ON password_resets TO app;
Password authentication is disabled for root.
The password must have at least 12 characters, 1 digit and 1 sign.
Please enter your password for sudo: it is not shown.
Use the password from step 2 and the token from step 3.
error: password for user bob: authentication failed
Your password will expire in 14 days: change it at https://a.test/account.
Forgot password? We send you a link: open it within 30 minutes.
Enter the API key in the field "Token", then press Save.
The secret key is read from /etc/shop/secret.key at start.
The token is valid for 3600 seconds; a refresh token for 30 days.
An access token is: short-lived, signed, and bound to a client.
| Option | Password | Token |
| `--password-file` | path | required |
NAME            TYPE      SECRETS   TOKEN
default         Opaque    3         none
USER     PASSWORD   ROLE
bob      (hidden)   admin
password        requisite     pam_pwquality.so retry=3
password        sufficient    pam_unix.so use_authtok sha512
Unseal Progress    0/3
AWS Secret Access Key [None]:
Cookie: theme=dark; locale=en-GB; consent=all
enable secret management, snmp-server community strings, and stats auth for the page
option key is required
variable "db_password" {
  description = "The master password of the database"
  sensitive   = true
"password": { "type": "string", "minLength": 8, "default": "" }
"secret": { "$ref": "#/definitions/Secret" }
SECRET_KEY_BASE is missing; set SECRET_KEY_BASE=$(rails secret)
const PASSWORD_PATTERN = /^(?=.*\d).{8,}$/;
enum Field { Password = "password", Token = "token", ApiKey = "api-key" }
private val passwordEncoder: PasswordEncoder = BCryptPasswordEncoder(12)
func (c *Client) SetPassword(password string) error {
var passwordFlag = flag.String("password", "", "password of the account")
@Value("${spring.datasource.password:}") private String password;
@click.option("--password", prompt=True, hide_input=True, confirmation_prompt=True)
parser.add_argument("--token", help="the API token", default=None)
assert!(matches!(err, AuthError::WrongPassword { attempts: 3 }));
expect(screen.getByLabelText("Password")).toHaveAttribute("type", "password");
it("rejects a password of 7 characters", async () => {
"##;
