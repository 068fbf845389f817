import { type ErrorComponentProps, Link } from "@tanstack/react-router";
import { Empty, Failure } from "../ui/states";

export function NotFound() {
  return (
    <main className="main main-alone">
      <title>Not found · SDP</title>
      <h1 className="visually-hidden">Not found</h1>
      <Empty title="There is no such page" action={<Link to="/" className="button">To the overview</Link>}>
        The address may be mistyped, or from another version of the dashboard.
      </Empty>
    </main>
  );
}

export function Problem({ error, reset }: ErrorComponentProps) {
  return (
    <main className="main main-alone">
      <title>Something went wrong · SDP</title>
      <h1 className="visually-hidden">Something went wrong</h1>
      <Failure error={error} retry={reset} />
    </main>
  );
}
