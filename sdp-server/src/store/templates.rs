//! Templates.

use rusqlite::{Connection, OptionalExtension, params};
use sdp_core::{Template, TemplateName};

use super::{
    Deed, Expected, Store, StoreError, audit,
    error::is_taken,
    values::{json, to_json},
};

impl Store {
    /// Keeps a new template, and with it what was done.
    ///
    /// # Errors
    /// [`StoreError::Exists`].
    pub async fn insert_template(&self, template: &Template, deed: Deed) -> Result<(), StoreError> {
        let (name, template) = (template.name.clone(), to_json(template));
        self.writer
            .write(move |connection| {
                let query = "INSERT INTO templates (name, template) VALUES (?1, ?2)";
                match connection.prepare_cached(query)?.execute(params![name.as_str(), template]) {
                    Ok(_) => audit::append(connection, &deed),
                    Err(error) if is_taken(&error) => {
                        Err(StoreError::Exists { what: "template", name: name.to_string() })
                    }
                    Err(error) => Err(error.into()),
                }
            })
            .await
    }

    /// Sets everything of a template anew, and keeps with it what was done. False when there is none.
    ///
    /// # Errors
    /// [`StoreError::Changed`].
    pub async fn replace_template(
        &self,
        template: &Template,
        expected: &Expected,
        deed: Deed,
    ) -> Result<bool, StoreError> {
        let (name, template, expected) = (template.name.clone(), to_json(template), expected.clone());
        self.writer
            .write(move |connection| {
                let Some(before) = load(connection, &name)? else { return Ok(false) };
                expected.check("template", name.as_str(), &before)?;
                let query = "UPDATE templates SET template = ?2 WHERE name = ?1";
                connection.prepare_cached(query)?.execute(params![name.as_str(), template])?;
                audit::append(connection, &deed).map(|()| true)
            })
            .await
    }

    /// The template of that name.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn template(&self, name: &TemplateName) -> Result<Option<Template>, StoreError> {
        let name = name.clone();
        self.readers.find(move |connection| load(connection, &name)).await
    }

    /// Every template, by name.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn templates(&self) -> Result<Vec<Template>, StoreError> {
        self.readers
            .read(|connection| {
                let mut statement = connection.prepare_cached("SELECT template FROM templates ORDER BY name")?;
                let mut rows = statement.query([])?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    found.push(json(row, "template")?);
                }
                Ok(found)
            })
            .await
    }

    /// Forgets a template, and keeps with that what was done. False when there is none.
    ///
    /// # Errors
    /// [`StoreError::Changed`].
    pub async fn delete_template(
        &self,
        name: &TemplateName,
        expected: &Expected,
        deed: Deed,
    ) -> Result<bool, StoreError> {
        let (name, expected) = (name.clone(), expected.clone());
        self.writer
            .write(move |connection| {
                let Some(before) = load(connection, &name)? else { return Ok(false) };
                expected.check("template", name.as_str(), &before)?;
                let query = "DELETE FROM templates WHERE name = ?1";
                connection.prepare_cached(query)?.execute([name.as_str()])?;
                audit::append(connection, &deed).map(|()| true)
            })
            .await
    }
}

fn load(connection: &Connection, name: &TemplateName) -> Result<Option<Template>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT template FROM templates WHERE name = ?1")?;
    statement.query_row([name.as_str()], |row| Ok(json(row, "template"))).optional()?.transpose()
}
