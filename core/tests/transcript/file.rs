//! The text of a transcript: blocks of commands and what they print.

use super::command;
use super::world::World;

/// One block: commands, and what they are expected to print.
#[derive(Debug)]
struct Block {
    /// Comments and empty lines before it.
    before: Vec<String>,
    line: usize,
    commands: Vec<String>,
    output: Vec<String>,
}

/// See the module.
#[derive(Debug)]
pub struct Transcript {
    blocks: Vec<Block>,
    rest: Vec<String>,
}

/// Where a transcript and its run differ.
#[derive(Debug)]
pub struct Mismatch {
    pub line: usize,
    pub text: String,
}

impl Transcript {
    pub fn parse(text: &str) -> Self {
        let mut blocks = Vec::new();
        let mut before = Vec::new();
        let mut lines = text.lines().zip(1..).peekable();
        while let Some((line, number)) = lines.next() {
            if line.is_empty() || line.starts_with('#') {
                before.push(line.to_owned());
                continue;
            }
            let mut commands = vec![line.to_owned()];
            let mut output = Vec::new();
            // A last block without output is one that was just written.
            while let Some((line, _)) = lines.next_if(|(l, _)| *l != "----" && !l.is_empty()) {
                commands.push(line.to_owned());
            }
            if lines.next_if(|(l, _)| *l == "----").is_some() {
                while let Some((line, _)) = lines.next_if(|(l, _)| !l.is_empty()) {
                    output.push(line.to_owned());
                }
            }
            blocks.push(Block { before: std::mem::take(&mut before), line: number, commands, output });
        }
        Self { blocks, rest: before }
    }

    /// Runs all blocks. A violation ends the run; a difference does not.
    pub fn run(&mut self, world: &mut World, update: bool) -> Vec<Mismatch> {
        let mut found = Vec::new();
        for block in &mut self.blocks {
            let mut printed = Vec::new();
            for line in block.commands.iter().filter(|l| !l.starts_with('#')) {
                command::run(world, line);
                printed.append(&mut world.out);
            }
            if printed.is_empty() {
                printed.push("ok".to_owned());
            }
            let violations = std::mem::take(&mut world.check.violations);
            let broken = !violations.is_empty();
            if broken {
                let context = printed.iter().rev().take(30).rev().map(|l| format!("    {l}\n")).collect::<String>();
                let violations = violations.join("\n  VIOLATION: ");
                let text = format!("  {}\n{context}  VIOLATION: {violations}\n", block.commands.join("\n  "));
                found.push(Mismatch { line: block.line, text });
            }
            if update {
                block.output = printed;
            } else if printed != block.output {
                let text = format!("  {}\n{}", block.commands.join("\n  "), difference(&block.output, &printed));
                found.push(Mismatch { line: block.line, text });
            }
            if broken {
                break;
            }
        }
        found
    }

    pub fn print(&self) -> String {
        let mut text = String::new();
        for block in &self.blocks {
            for line in block.before.iter().chain(&block.commands) {
                text += line;
                text += "\n";
            }
            text += "----\n";
            for line in &block.output {
                text += line;
                text += "\n";
            }
        }
        for line in &self.rest {
            text += line;
            text += "\n";
        }
        text
    }
}

/// Lines that left and lines that came, by the longest common subsequence.
fn difference(expected: &[String], printed: &[String]) -> String {
    let (n, m) = (expected.len(), printed.len());
    let mut common = vec![vec![0_usize; m + 1]; n + 1];
    for i in (0..n).rev() {
        for j in (0..m).rev() {
            common[i][j] = if expected[i] == printed[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut text) = (0, 0, String::new());
    while i < n || j < m {
        if i < n && j < m && expected[i] == printed[j] {
            text += &format!("      {}\n", expected[i]);
            (i, j) = (i + 1, j + 1);
        } else if i < n && (j == m || common[i + 1][j] >= common[i][j + 1]) {
            text += &format!("    - {}\n", expected[i]);
            i += 1;
        } else {
            text += &format!("    + {}\n", printed[j]);
            j += 1;
        }
    }
    text
}
