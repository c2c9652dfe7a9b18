//! One self-contained HTML page from one or several run directories: no script library, no network, no model.

mod arms;
mod dialogues;
mod learning;
mod page;
mod plot;
mod provenance;
mod read;
mod tool_use;
mod training;

pub(crate) use read::Run;

/// The page for `runs`: the first is described in full, all are compared item by item.
pub(crate) fn render(runs: &[Run]) -> String {
    let Some(run) = runs.first() else { return page::wrap("no run", "") };
    let parts = [
        arms::headline(run),
        if runs.len() > 1 { arms::comparison(runs) } else { String::new() },
        arms::steps(run),
        arms::groups(run),
        tool_use::tools(run),
        learning::curves(runs),
        learning::monitors(run),
        provenance::facts(run),
        dialogues::samples(run),
        provenance::stages(run),
        provenance::provenance(run),
    ];
    let title = runs.iter().map(|r| r.label.as_str()).collect::<Vec<_>>().join(" · ");
    page::wrap(&title, &parts.concat())
}

#[cfg(test)]
mod tests;
