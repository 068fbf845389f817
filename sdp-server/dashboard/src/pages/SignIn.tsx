import { useMutation, useQueryClient } from "@tanstack/react-query";
import { getRouteApi, useNavigate } from "@tanstack/react-router";
import { Eye, EyeOff } from "lucide-react";
import { useEffect, useState } from "react";
import { client, take } from "../api/client";
import { formError } from "../api/problem";
import { queries } from "../api/queries";
import { Logo } from "../Shell";
import { Field } from "../ui/field";
import { FormError } from "../ui/states";

const route = getRouteApi("/sign-in");

export function SignIn() {
  const { next } = route.useSearch();
  const navigate = useNavigate();
  const cache = useQueryClient();
  const [username, setUsername] = useState("");
  const [password, setPassword] = useState("");
  const [isShown, setShown] = useState(false);
  const signIn = useMutation({
    mutationFn: () => take(client.POST("/api/login", { body: { username, password } })),
    onSuccess: async () => {
      cache.clear();
      await cache.fetchQuery({ ...queries.me, staleTime: 0 });
      await navigate({ to: next ?? "/", replace: true });
    },
  });

  // Whoever is signed in already has nothing to do here.
  useEffect(() => {
    void cache.fetchQuery(queries.me).then((me) => (me ? navigate({ to: next ?? "/", replace: true }) : undefined), () => undefined);
  }, [cache, navigate, next]);

  return (
    <main className="sign-in">
      <title>Sign in · SDP</title>
      <form
        className="sign-in-card"
        onSubmit={(event) => {
          event.preventDefault();
          signIn.mutate();
        }}
      >
        <div className="sign-in-brand">
          <Logo />
          <h1>Sign in to SDP</h1>
          <p className="muted">With the user and password of your git host. They are checked there, and kept in memory only, for your own deployments.</p>
        </div>
        <FormError text={formError(signIn.error, ["username", "password"])} />
        <Field label="Git user" name="username" error={signIn.error}>
          {(control) => (
            // This page is for nothing else.
            // eslint-disable-next-line jsx-a11y/no-autofocus
            <input {...control} className="input" autoFocus required autoComplete="username" autoCapitalize="off" spellCheck={false} value={username} onChange={(event) => setUsername(event.target.value)} />
          )}
        </Field>
        <Field label="Password or access token" name="password" error={signIn.error}>
          {(control) => (
            <div className="with-button">
              <input {...control} className="input" type={isShown ? "text" : "password"} required autoComplete="current-password" value={password} onChange={(event) => setPassword(event.target.value)} />
              <button type="button" className="icon-button" aria-label={isShown ? "Hide the password" : "Show the password"} onClick={() => setShown(!isShown)}>
                {isShown ? <EyeOff size={16} aria-hidden /> : <Eye size={16} aria-hidden />}
              </button>
            </div>
          )}
        </Field>
        <button type="submit" className="button button-primary button-wide" disabled={signIn.isPending}>
          {signIn.isPending ? "Asking the git host…" : "Sign in"}
        </button>
      </form>
    </main>
  );
}
