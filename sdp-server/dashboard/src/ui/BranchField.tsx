import { useQuery } from "@tanstack/react-query";
import { useDeferredValue } from "react";
import { sentence } from "../api/problem";
import { queries } from "../api/queries";
import { Combobox } from "./combobox";
import { Field } from "./field";

interface BranchFieldProps {
  repo: string;
  value: string;
  onChange: (branch: string) => void;
  error?: unknown;
  label?: string;
  name?: string;
}

/** A branch of a repo, found on its git host while it is typed. */
export function BranchField({ repo, value, onChange, error, label = "Branch", name = "branch" }: BranchFieldProps) {
  const typed = useDeferredValue(value);
  const branches = useQuery(queries.branches(repo, typed));
  const hint = branches.isError ? `Branches cannot be listed: ${sentence(branches.error)}` : undefined;
  return (
    <Field label={label} name={name} error={error} hint={hint}>
      {(control) => (
        <Combobox
          {...control}
          value={value}
          onChange={onChange}
          options={branches.data ?? []}
          name={(branch) => branch.name}
          placeholder={repo === "" ? "Choose a repo first" : "Type to search"}
          disabled={repo === ""}
          isLoading={branches.isFetching}
          empty="No branch is called that"
          required
        >
          {(branch) => (
            <>
              <span className="clip">{branch.name}</span>
              <code className="muted push">{branch.commit.slice(0, 8)}</code>
            </>
          )}
        </Combobox>
      )}
    </Field>
  );
}
