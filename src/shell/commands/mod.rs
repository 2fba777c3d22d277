//! The commands, in the order in which `help` lists them.

mod general;
mod machine;
mod nested;
mod network;
mod object;
mod objects;
mod volume;

use alloc::boxed::Box;
use alloc::string::String;

use super::command::{Command, Definition, Output, Step};
use super::machine::Context;

/// Begins a command that runs other commands: its arguments, and how deep it is nested itself.
pub type Nesting = fn(&[String], &mut Context<'_>, usize) -> Result<Box<dyn Command>, String>;

const TABLES: [&[Definition]; 6] =
    [general::COMMANDS, machine::COMMANDS, network::COMMANDS, volume::COMMANDS, objects::COMMANDS, object::COMMANDS];

/// Every command by itself.
pub fn all() -> impl Iterator<Item = &'static Definition> {
    TABLES.into_iter().flatten()
}

/// The command of that name.
pub fn find(name: &str) -> Option<&'static Definition> {
    all().find(|definition| definition.name == name)
}

/// The command of that name, if it runs other commands.
pub fn nesting(name: &str) -> Option<Nesting> {
    nested::COMMANDS.iter().find(|(definition, _)| *definition == name).map(|(_, start)| *start)
}

/// A command that says all it has to say at once.
struct Once<F>(Option<F>);

impl<F: FnOnce(&mut Context<'_>, &mut Output) -> i32> Command for Once<F> {
    fn step(&mut self, context: &mut Context<'_>, out: &mut Output) -> Step {
        Step::Done(self.0.take().map_or(0, |run| run(context, out)))
    }
}

fn once<F: FnOnce(&mut Context<'_>, &mut Output) -> i32 + 'static>(run: F) -> Result<Box<dyn Command>, String> {
    Ok(Box::new(Once(Some(run))))
}

/// A command that goes on until `step` is done.
struct Steps<F>(F);

impl<F: FnMut(&mut Context<'_>, &mut Output) -> Step> Command for Steps<F> {
    fn step(&mut self, context: &mut Context<'_>, out: &mut Output) -> Step {
        (self.0)(context, out)
    }
}

fn steps<F: FnMut(&mut Context<'_>, &mut Output) -> Step + 'static>(step: F) -> Result<Box<dyn Command>, String> {
    Ok(Box::new(Steps(step)))
}

fn no_arguments(arguments: &[String]) -> Result<(), String> {
    match arguments.first() {
        None => Ok(()),
        Some(argument) => Err(alloc::format!("unexpected argument '{argument}': this command takes none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_stands_twice() {
        let mut names: alloc::vec::Vec<_> = all().map(|definition| definition.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(nested::COMMANDS.iter().all(|(name, _)| find(name).is_none()));
    }
}
