//! Planted bugs: each must be noticed by an oracle within its budget.

/// Runs every mutant (or the one named); true when all were caught.
#[cfg(feature = "mutants")]
#[must_use]
pub fn mutants(only: Option<&str>, budget: u64, events: u64) -> bool {
    use super::load;
    use crate::run::run_caught;
    use crate::scenario::plan;
    use crate::world::Mode;
    use wukong_core::Shard;
    use wukong_core::mutants::Mutant;

    let mut survived = 0;
    for mutant in Mutant::ALL {
        let name = format!("{mutant:?}");
        if only.is_some_and(|o| o != name) {
            continue;
        }
        let mode = Mode { mutant: Some(mutant), ..Mode::default() };
        let directed = directed("mutants", &name);
        let scenarios = directed.iter().filter_map(|p| load(p).ok().map(|s| (s, true)));
        let generated = (0..budget).map(|seed| (plan::generate(seed, events), false));
        let mut runs = 0;
        let caught = scenarios.chain(generated).find_map(|(scenario, scripted)| {
            runs += 1;
            let outcome = run_caught::<Shard>(&scenario, mode);
            let mut all: Vec<&str> = outcome.violations.iter().map(|v| v.invariant).collect();
            all.sort_unstable();
            all.dedup();
            outcome.violations.first().map(|v| (all.join(" "), v.what.clone(), scripted, scenario.seed))
        });
        match caught {
            Some((invariant, what, scripted, seed)) => {
                let by = if scripted { "its scenario".to_owned() } else { format!("seed {seed}") };
                let what: String = what.chars().take(90).collect();
                println!("caught   {name:<26} {runs:>5} runs, {by}: {invariant}: {what}");
            }
            None => {
                survived += 1;
                println!("SURVIVED {name:<26} {runs} runs");
            }
        }
    }
    survived == 0
}

/// How the hunt for a mutant went.
#[cfg(feature = "mutants")]
pub(super) struct Hunt {
    pub is_caught: bool,
    pub runs: u64,
    /// Seconds.
    pub took: f64,
}

/// Runs plans, each with whether it was written for this mutant, until one fails; says what noticed it.
#[cfg(feature = "mutants")]
pub(super) fn hunt<P>(
    name: &str,
    plans: impl Iterator<Item = (P, bool)>,
    seed: impl Fn(&P) -> u64,
    run: impl Fn(&P) -> Option<crate::history::Violation>,
) -> Hunt {
    let began = std::time::Instant::now();
    let mut runs = 0;
    let caught = plans.into_iter().find_map(|(plan, scripted)| {
        runs += 1;
        run(&plan).map(|v| (v.to_string(), scripted, seed(&plan)))
    });
    let took = began.elapsed().as_secs_f64();
    match &caught {
        Some((what, scripted, seed)) => {
            let by = if *scripted { format!("its scenario, seed {seed}") } else { format!("seed {seed}") };
            let what: String = what.chars().take(110).collect();
            println!("caught   {name:<26} {runs:>4} runs {took:>5.1} s, {by}: {what}");
        }
        None => println!("SURVIVED {name:<26} {runs:>4} runs {took:>5.1} s"),
    }
    Hunt { is_caught: caught.is_some(), runs, took }
}

/// Scenarios written for a mutant.
#[cfg(feature = "mutants")]
pub(super) fn directed(folder: &str, name: &str) -> Vec<std::path::PathBuf> {
    let mut files = super::scenarios_in(folder);
    files.retain(|f| f.file_stem().is_some_and(|s| s.to_string_lossy().starts_with(name)));
    files
}

/// Without the feature there is nothing to plant.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub fn mutants(_: Option<&str>, _: u64, _: u64) -> bool {
    super::seeds::said("build with --features mutants: `make mutants`")
}
