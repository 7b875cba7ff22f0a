//! A minimal parser of a source file: its tokens, and its paths into the crate.

/// A path into the crate in a source.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) line: usize,
    /// From the crate's root: `["key", "KeyId"]`. A glob ends in `*`.
    pub(super) path: Vec<String>,
    /// The name under which it is imported.
    pub(super) name: String,
}

/// All paths into the crate in a module.
pub(super) fn paths(source: &str, module: &[String]) -> Vec<Found> {
    let mut reader = Reader {
        tokens: &tokens(source),
        at: 0,
        found: Vec::new(),
    };
    let mut here = module.to_vec();
    // The depth of braces, and where each module within the file began.
    let (mut depth, mut began) = (0, Vec::new());
    while let Some(token) = reader.token(0) {
        match (token, reader.token(1), reader.token(2)) {
            (Token::Word("mod"), Some(Token::Word(name)), Some(Token::Other('{'))) => {
                here.push(name.to_owned());
                began.push(depth);
                reader.at += 2;
                continue;
            }
            (Token::Other('{'), ..) => depth += 1,
            (Token::Other('}'), ..) => {
                depth -= 1;
                if began.pop_if(|before| *before == depth).is_some() {
                    here.pop();
                }
            }
            // Only a `use` in the root can begin with the name of a module.
            (Token::Word("use"), Some(Token::Word(_)), _) if here.is_empty() => {
                reader.at += 1;
                reader.tree(&here);
                continue;
            }
            (Token::Word("use"), Some(Token::Word("crate")), Some(Token::Word("as"))) => {
                reader.note(&["*".to_owned()], "*");
            }
            (Token::Word("crate" | "super" | "self"), Some(Token::Colons), _) => {
                reader.tree(&here);
                continue;
            }
            (Token::Colons, Some(Token::Word(_)), _) => reader.at += 1,
            _ => {}
        }
        reader.at += 1;
    }
    reader.found
}

struct Reader<'s> {
    tokens: &'s [(usize, Token<'s>)],
    at: usize,
    found: Vec<Found>,
}

impl<'s> Reader<'s> {
    fn token(&self, ahead: usize) -> Option<Token<'s>> {
        self.tokens.get(self.at + ahead).map(|(_, token)| *token)
    }

    fn note(&mut self, path: &[String], name: &str) {
        self.found.push(Found {
            line: self.tokens[self.at.min(self.tokens.len() - 1)].0,
            path: path.to_vec(),
            name: name.to_owned(),
        });
    }

    /// Parses a path or a tree of paths whose first name is resolved in `within`.
    fn tree(&mut self, within: &[String]) {
        let mut path = within.to_vec();
        loop {
            match self.token(0) {
                Some(Token::Word("crate")) => path.clear(),
                Some(Token::Word("super")) => drop(path.pop()),
                Some(Token::Word("self")) => {}
                Some(Token::Word(name)) => path.push(name.to_owned()),
                Some(Token::Other('*')) => path.push("*".to_owned()),
                Some(Token::Other('{')) => return self.branches(&path),
                // `::<T>`
                _ => break,
            }
            if self.token(1) != Some(Token::Colons) {
                break;
            }
            self.at += 2;
        }
        let name = match (self.token(1), self.token(2)) {
            (Some(Token::Word("as")), Some(Token::Word(name))) => name.to_owned(),
            _ => path.last().cloned().unwrap_or_default(),
        };
        self.note(&path, &name);
        self.at += 1;
    }

    fn branches(&mut self, within: &[String]) {
        self.at += 1;
        while let Some(token) = self.token(0) {
            match token {
                Token::Other('}') => break,
                Token::Other(',') => self.at += 1,
                Token::Word("as") => self.at += 2,
                _ => self.tree(within),
            }
        }
        self.at += 1;
    }
}

// ---- tokens ----

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'s> {
    Word(&'s str),
    Colons,
    Other(char),
}

/// Tokenizes a source into words and punctuation, with line numbers; without comments, strings and
/// characters.
pub(super) fn tokens(source: &str) -> Vec<(usize, Token<'_>)> {
    let (mut tokens, mut rest, mut line) = (Vec::new(), source, 1);
    while let Some(first) = rest.chars().next() {
        let word = rest.len() - rest.trim_start_matches(is_of_word).len();
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' {
            character(rest)
        } else if let Some(length) = raw(rest) {
            length
        } else if word > 0 {
            tokens.push((line, Token::Word(&rest[..word])));
            word
        } else if rest.starts_with("::") {
            tokens.push((line, Token::Colons));
            2
        } else {
            if !first.is_whitespace() {
                tokens.push((line, Token::Other(first)));
            }
            first.len_utf8()
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    tokens
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of a comment, which may be nested.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let (step, change) = match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (2, 1),
            [b'*', b'/', ..] => (2, -1),
            _ => (1, 0),
        };
        depth += change;
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of a quoted string, including the quotes.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a character literal, or of the quote that begins a lifetime.
fn character(text: &str) -> usize {
    let mut after = text.chars().skip(1);
    match (after.next(), after.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => quoted(text, '\''),
        _ => 1,
    }
}

/// The length of a raw string, or of the prefix of a raw identifier.
fn raw(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r"]
        .into_iter()
        .find(|prefix| text.starts_with(prefix))?;
    let after = text[prefix.len()..].trim_start_matches('#');
    let hashes = text.len() - prefix.len() - after.len();
    match after.chars().next()? {
        '"' => {
            let end = format!("\"{}", "#".repeat(hashes));
            let length = after[1..].find(&end).map(|at| at + 1 + end.len());
            Some(prefix.len() + hashes + length.unwrap_or(after.len()))
        }
        c if hashes == 1 && is_of_word(c) => Some(prefix.len() + hashes),
        _ => None,
    }
}
