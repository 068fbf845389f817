import type { Problem } from "./types";

/** A refusal as the server words it, RFC 9457. */
export class ApiProblem extends Error {
  override readonly name = "ApiProblem";

  constructor(readonly problem: Problem) {
    super(problem.detail);
  }

  get status(): number {
    return this.problem.status;
  }

  get field(): string | undefined {
    return this.problem.field ?? undefined;
  }
}

/** What a failure is to be shown as, whatever was thrown. */
export function sentence(error: unknown): string {
  if (error instanceof ApiProblem) return error.problem.detail;
  if (error instanceof TypeError) return "The server cannot be reached. Check the connection and try again.";
  return error instanceof Error ? error.message : String(error);
}

/** The sentence for one field, if the refusal is about it. A map's entry, `env.MODE`, is about the map. */
export function fieldError(error: unknown, field: string): string | undefined {
  if (!(error instanceof ApiProblem) || error.field === undefined) return undefined;
  const isAbout = error.field === field || error.field.startsWith(`${field}.`) || error.field.startsWith(`${field}[`);
  return isAbout ? error.problem.detail : undefined;
}

/** The sentence for a form, if the refusal is about none of its fields. */
export function formError(error: unknown, fields: readonly string[]): string | undefined {
  if (!error) return undefined;
  return fields.some((field) => fieldError(error, field) !== undefined) ? undefined : sentence(error);
}

/** What was answered instead of what was asked for. */
export function asProblem(body: unknown, response: Response): ApiProblem {
  if (typeof body === "object" && body !== null && "detail" in body && "code" in body) {
    return new ApiProblem(body as Problem);
  }
  const detail = `The server answered ${response.status} ${response.statusText}.`.replace(" .", ".");
  const { status } = response;
  return new ApiProblem({ type: "about:blank", title: detail, status, code: "internal", detail, retryable: status >= 500 });
}
