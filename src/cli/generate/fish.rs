//! Completion for fish: one line for each word and flag, under the condition of its place.

use super::super::commands::{Place, Wanted, places};
use super::super::flags::Flag;

/// The script.
pub(super) fn script() -> String {
    let places = places();
    let known: Vec<_> = places[1..]
        .iter()
        .map(|place| quoted(&place.path))
        .collect();
    let mut text = BEGIN.replace("KNOWN", &known.join(" "));
    for place in &places {
        self::place(&mut text, place);
    }
    text
}

fn place(text: &mut String, place: &Place) {
    text.push('\n');
    let condition = quoted(&format!("__towpath_at {}", quoted(&place.path)));
    let mut line = |rest: &str| {
        text.push_str(&format!("complete -c towpath -n {condition} {rest}\n"));
    };
    for (word, about) in &place.words {
        line(&format!("-a {word} -d {}", quoted(about)));
    }
    match &place.operand {
        Wanted::Words(words) => line(&format!("-a {}", quoted(&words.join(" ")))),
        Wanted::File | Wanted::Folder => line("-F"),
        Wanted::Nothing | Wanted::Own(_) => {}
    }
    for flag in &place.flags {
        line(&format!("{} -d {}", option(flag), quoted(flag.help)));
    }
}

fn option(flag: &Flag) -> String {
    let short = flag.short.map(|short| format!("-s {short} "));
    let value = match flag.wanted() {
        Wanted::Nothing => String::new(),
        Wanted::Words(words) => format!(" -x -a {}", quoted(&words.join(" "))),
        Wanted::File => " -r -F".to_owned(),
        Wanted::Folder => " -x -a '(__fish_complete_directories)'".to_owned(),
        Wanted::Own(_) => " -x".to_owned(),
    };
    format!("{}-l {}{value}", short.unwrap_or_default(), flag.long)
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

const BEGIN: &str = r#"# Completion of towpath's command lines for fish, made by `towpath gen completions fish`.

function __towpath_at
    set -l place ''
    for word in (commandline -opc)[2..]
        switch "$place $word"
            case KNOWN
                set place "$place $word"
            case '*'
                break
        end
    end
    test "$place" = "$argv[1]"
end

complete -c towpath -f
"#;
