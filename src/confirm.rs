//! Confirmation before something is lost: a typed name on a terminal, `--yes` in scripts.

use std::io::{BufRead, IsTerminal, Write};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// Asks for the name to be typed, unless `yes`. `about` is the sentence that says what will happen.
pub fn typed(about: &str, name: &str, yes: bool) -> Outcome {
    let stdin = std::io::stdin();
    let terminal = stdin.is_terminal();
    decide(about, name, yes, terminal, &mut stdin.lock(), &mut std::io::stderr())
}

fn decide(
    about: &str,
    name: &str,
    yes: bool,
    terminal: bool,
    input: &mut dyn BufRead,
    output: &mut dyn Write,
) -> Outcome {
    if yes {
        return Ok(());
    }
    if !terminal {
        let failure = Failure::new(
            Exit::Usage,
            format!("{about} This needs a confirmation, and there is no terminal."),
        );
        return Err(failure.help("give --yes to confirm from a script"));
    }
    let mut answer = String::new();
    let asked = write!(output, "{about}\nType {name} to go on: ").and_then(|()| output.flush());
    asked
        .and_then(|()| input.read_line(&mut answer))
        .map_err(|e| Failure::new(Exit::Failed, e.to_string()))?;
    if answer.trim() == name {
        Ok(())
    } else {
        Err(Failure::new(Exit::Interrupted, "not confirmed; nothing was done"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(answer: &str, yes: bool, terminal: bool) -> Outcome {
        decide(
            "All is lost.",
            "shop",
            yes,
            terminal,
            &mut answer.as_bytes(),
            &mut Vec::new(),
        )
    }

    #[test]
    fn only_the_typed_name_or_yes_confirms() {
        assert_eq!(ask("shop\n", false, true), Ok(()));
        assert_eq!(ask("", true, false), Ok(()));
        for no in ["", "\n", "y\n", "yes\n", "Shop\n"] {
            assert_eq!(ask(no, false, true).unwrap_err().exit, Exit::Interrupted, "{no:?}");
        }
    }

    #[test]
    fn a_script_without_yes_is_told_so() {
        let failure = ask("shop\n", false, false).unwrap_err();
        assert_eq!(
            (failure.exit, failure.help.as_deref()),
            (Exit::Usage, Some("give --yes to confirm from a script"))
        );
    }
}
