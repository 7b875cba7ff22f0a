//! Chromium, controlled through ChromeDriver (W3C WebDriver) and stopped when the test ends.
//!
//! Pages are used as people use them: links, buttons and fields are found by their texts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::wait::until;

/// The time limit for any browser operation.
const PATIENCE: Duration = Duration::from_secs(60);

/// The member that identifies an element (WebDriver §11).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with a fresh profile.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: tempfile::TempDir,
}

/// An element of the page that is open.
#[derive(Debug)]
pub struct Element<'b> {
    browser: &'b Browser,
    id: String,
}

/// Returns the path of a program.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(name));
    places.find(|place| place.is_file()).unwrap_or_else(|| {
        panic!(
            "{name} is missing: this test needs Chromium and ChromeDriver. \
             Debian: apt-get install chromium chromium-driver (scripts/test does it)"
        )
    })
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id");
    id.stdout.trim_ascii() == b"0"
}

impl Browser {
    pub fn start() -> Self {
        Self::with(&json!({}))
    }

    /// A browser whose user turned JavaScript off. Scripts of the driver still run.
    pub fn without_script() -> Self {
        Self::with(&json!({ "profile.managed_default_content_settings.javascript": 2 }))
    }

    fn with(preferences: &Value) -> Self {
        let (chromium, chromedriver) = (program("chromium"), program("chromedriver"));
        let mut driver = Command::new(chromedriver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let said = BufReader::new(driver.stdout.take().unwrap());
        let port_of = |line: String| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse().ok()
        };
        let mut lines = said.lines();
        let port = lines.by_ref().map_while(Result::ok).find_map(port_of);
        // The output must be read, otherwise ChromeDriver blocks when it writes.
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Self {
            driver,
            port: port.expect("ChromeDriver says its port"),
            session: String::new(),
            _profile: profile,
        };
        let mut flags = vec![
            "--headless=new".to_owned(),
            "--disable-gpu".into(),
            "--disable-extensions".into(),
            "--disable-quic".into(),
            "--no-first-run".into(),
            "--disable-background-networking".into(),
            "--disable-component-update".into(),
            "--disable-sync".into(),
            "--disable-dev-shm-usage".into(),
            "--hide-scrollbars".into(),
            format!("--user-data-dir={}", browser._profile.path().display()),
        ];
        if is_root() {
            flags.push("--no-sandbox".into());
        }
        let options = json!({ "binary": chromium, "args": flags, "prefs": preferences });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "timeouts": { "script": 50_000, "pageLoad": 50_000 },
            "goog:chromeOptions": options,
        } } });
        let session = browser.ask("POST", "/session", &wanted);
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    /// Opens a page.
    pub fn open(&self, url: &str) {
        self.command("url", &json!({ "url": url }));
    }

    /// Loads the page again, and sends its form again if it is the answer to one.
    pub fn reload(&self) {
        self.command("refresh", &json!({}));
    }

    /// Returns the address of the page.
    pub fn address(&self) -> String {
        self.read("url").as_str().unwrap().to_owned()
    }

    pub fn title(&self) -> String {
        self.read("title").as_str().unwrap().to_owned()
    }

    /// Returns the source of the page.
    pub fn source(&self) -> String {
        self.read("source").as_str().unwrap().to_owned()
    }

    /// Runs a script in the page, and returns its result.
    pub fn run(&self, script: &str, arguments: &Value) -> Value {
        let body = json!({ "script": script, "args": arguments });
        self.command("execute/sync", &body)
    }

    /// Runs an asynchronous script in the page, which calls its last argument with its result.
    pub fn call(&self, script: &str, arguments: &Value) -> Value {
        let body = json!({ "script": script, "args": arguments });
        self.command("execute/async", &body)
    }

    /// Returns the text of the page that is shown.
    pub fn text(&self) -> String {
        self.css("body").text()
    }

    /// Returns the first element that a CSS selector selects.
    #[track_caller]
    pub fn css(&self, selector: &str) -> Element<'_> {
        self.element("css selector", selector)
    }

    /// Returns how many elements a CSS selector selects.
    pub fn count(&self, selector: &str) -> usize {
        let body = json!({ "using": "css selector", "value": selector });
        self.command("elements", &body).as_array().unwrap().len()
    }

    /// Follows the link with this text.
    #[track_caller]
    pub fn follow(&self, text: &str) {
        let link = format!("//a[normalize-space()={text:?}]");
        self.element("xpath", &link).leave();
    }

    /// Presses the button with this text, which sends a form.
    #[track_caller]
    pub fn press(&self, text: &str) {
        self.button(text).leave();
    }

    /// Returns the button with this text.
    #[track_caller]
    pub fn button(&self, text: &str) -> Element<'_> {
        self.element("xpath", &format!("//button[normalize-space()={text:?}]"))
    }

    /// Returns the control with this label.
    #[track_caller]
    pub fn field(&self, label: &str) -> Element<'_> {
        let label = format!("//label[normalize-space()={label:?}]");
        let control = format!("//*[@id={label}/@for] | {label}//input");
        self.element("xpath", &control)
    }

    /// Enters a text in the field with this label, in place of its content.
    #[track_caller]
    pub fn enter(&self, label: &str, text: &str) {
        let field = self.field(label);
        field.command("clear", &json!({}));
        field.command("value", &json!({ "text": text }));
    }

    /// Chooses an option in the list with this label.
    #[track_caller]
    pub fn choose(&self, label: &str, option: &str) {
        let label = format!("//label[normalize-space()={label:?}]");
        let option = format!("//select[@id={label}/@for]/option[normalize-space()={option:?}]");
        self.element("xpath", &option).click();
    }

    #[track_caller]
    fn element(&self, using: &str, value: &str) -> Element<'_> {
        let body = json!({ "using": using, "value": value });
        let answer = self.try_ask("POST", &self.path("element"), &body).unwrap();
        let Some(id) = answer["value"][ELEMENT].as_str() else {
            panic!("no {value} at {}:\n{}", self.address(), self.text());
        };
        Element {
            browser: self,
            id: id.to_owned(),
        }
    }

    /// Presses a key this many times, such as `\u{e004}` for Tab (WebDriver §17.4.2).
    pub fn keys(&self, key: &str, times: usize) {
        let press = ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key }));
        let presses: Vec<_> = (0..times).flat_map(|_| press.clone()).collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": presses });
        self.command("actions", &json!({ "actions": [keyboard] }));
    }

    /// Sets the width of the window in CSS pixels. No window of the desktop is as narrow as a phone.
    pub fn width(&self, width: u32) {
        let size =
            json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.protocol("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Sets the theme that the user prefers: `light` or `dark`.
    pub fn theme(&self, theme: &str) {
        // Colors change at once.
        let features = [
            ("prefers-color-scheme", theme),
            ("prefers-reduced-motion", "reduce"),
        ];
        let features = features.map(|(name, value)| json!({ "name": name, "value": value }));
        let media = json!({ "features": features });
        self.protocol("Emulation.setEmulatedMedia", &media);
    }

    /// Writes a picture of the page to a file: the whole page, or what the window shows in a smaller
    /// file.
    pub fn screenshot(&self, path: &Path, whole: bool) {
        let body = json!({ "format": "png", "captureBeyondViewport": whole,
            "optimizeForSpeed": whole });
        let taken = self.protocol("Page.captureScreenshot", &body);
        let bytes = STANDARD.decode(taken["data"].as_str().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Lets pages of an origin read and write the clipboard.
    pub fn allow_clipboard(&self, origin: &str) {
        let permissions = json!(["clipboardReadWrite", "clipboardSanitizedWrite"]);
        self.protocol(
            "Browser.grantPermissions",
            &json!({ "origin": origin, "permissions": permissions }),
        );
    }

    /// Returns the text in the clipboard.
    pub fn clipboard(&self) -> String {
        let read = "navigator.clipboard.readText().then(arguments[0], e => arguments[0](`${e}`))";
        self.call(read, &json!([])).as_str().unwrap().to_owned()
    }

    /// Sends a command of the DevTools protocol.
    pub fn protocol(&self, name: &str, parameters: &Value) -> Value {
        self.command(
            "goog/cdp/execute",
            &json!({ "cmd": name, "params": parameters }),
        )
    }

    fn path(&self, name: &str) -> String {
        format!("/session/{}/{name}", self.session)
    }

    #[track_caller]
    fn command(&self, name: &str, body: &Value) -> Value {
        self.ask("POST", &self.path(name), body)
    }

    #[track_caller]
    fn read(&self, name: &str) -> Value {
        self.ask("GET", &self.path(name), &Value::Null)
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.try_ask(method, path, body).unwrap();
        assert!(
            answer["value"]["error"].is_null(),
            "{method} {path}: {answer}"
        );
        answer["value"].clone()
    }

    fn try_ask(&self, method: &str, path: &str, body: &Value) -> std::io::Result<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\
             Content-Type: application/json; charset=utf-8\r\nContent-Length: {}\r\n\r\n",
            self.port,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let mut answer = BufReader::new(stream);
        let (mut length, mut line) = (0, String::new());
        while answer.read_line(&mut line)? > 2 {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
            line.clear();
        }
        let mut bytes = vec![0; length];
        answer.read_exact(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}

impl Element<'_> {
    #[track_caller]
    pub fn click(&self) {
        self.command("click", &json!({}));
    }

    /// Clicks on the element, and waits until its page is left. (ChromeDriver waits for the next page,
    /// but sometimes a click returns before the browser has begun to load it.)
    #[track_caller]
    pub fn leave(&self) {
        self.click();
        let path = self.browser.path(&format!("element/{}/name", self.id));
        let ask = || self.browser.try_ask("GET", &path, &Value::Null).unwrap();
        until("the page is left", || !ask()["value"]["error"].is_null());
    }

    /// Returns the text that is shown.
    pub fn text(&self) -> String {
        self.read("text").as_str().unwrap().to_owned()
    }

    /// Returns the current value of a control.
    pub fn value(&self) -> String {
        self.property("value").as_str().unwrap().to_owned()
    }

    /// Returns a property of the element.
    pub fn property(&self, name: &str) -> Value {
        self.read(&format!("property/{name}"))
    }

    /// Whether the element is shown.
    pub fn is_displayed(&self) -> bool {
        self.read("displayed") == true
    }

    #[track_caller]
    fn command(&self, name: &str, body: &Value) -> Value {
        let name = format!("element/{}/{name}", self.id);
        self.browser.command(&name, body)
    }

    fn read(&self, name: &str) -> Value {
        self.browser.read(&format!("element/{}/{name}", self.id))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // This stops the browser.
            let session = format!("/session/{}", self.session);
            let _ = self.try_ask("DELETE", &session, &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
