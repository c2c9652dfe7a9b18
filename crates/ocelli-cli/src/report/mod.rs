//! One self-contained HTML page from one or several run directories: no script library, no network, no model.

mod page;
mod plot;
mod read;
mod sections;

pub(crate) use read::Run;

/// The page for `runs`: the first is described in full, all are compared item by item.
pub(crate) fn render(runs: &[Run]) -> String {
    let mut body = String::new();
    if let Some(run) = runs.first() {
        body += &sections::headline(run);
        body += &sections::alarms(run);
        if runs.len() > 1 {
            body += &sections::comparison(runs);
        }
        body += &sections::groups(run);
        body += &sections::facts(run);
        body += &sections::tools(run);
        body += &sections::samples(run);
        body += &sections::curves(run);
        body += &sections::stages(run);
        body += &sections::provenance(run);
    }
    let title = runs.iter().map(|r| r.summary.name.as_str()).collect::<Vec<_>>().join(" · ");
    page::wrap(&title, &body)
}

#[cfg(test)]
mod tests;
