import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { Ban, RefreshCw, RotateCcw, Square, Undo2 } from "lucide-react";
import type { ReactNode } from "react";
import { client, take } from "../api/client";
import { type Deployment, isActive } from "../api/types";
import { complain, say } from "./toast";

type Deed = "cancel" | "stop" | "restart" | "retry" | "rollback";

const SAYS: Record<Deed, string> = {
  cancel: "is being cancelled",
  stop: "is stopped",
  restart: "is restarted",
  retry: "is deployed again",
  rollback: "is rolled back",
};

export interface Action {
  deed: Deed;
  label: string;
  icon: ReactNode;
}

/** What can be done with a deployment as it stands. */
export function actionsOf({ state, commit }: Deployment): Action[] {
  if (isActive(state)) return [{ deed: "cancel", label: "Cancel", icon: <Ban size={15} aria-hidden /> }];
  const all: (Action | false)[] = [
    { deed: "retry", label: state === "running" ? "Redeploy" : "Deploy again", icon: <RefreshCw size={15} aria-hidden /> },
    (state === "running" || state === "stopped") && { deed: "restart", label: state === "stopped" ? "Start" : "Restart", icon: <RotateCcw size={15} aria-hidden /> },
    state === "running" && { deed: "stop", label: "Stop", icon: <Square size={15} aria-hidden /> },
    commit != null && state !== "failed" && state !== "cancelled" && { deed: "rollback", label: state === "running" ? "Roll back" : "Roll back to this", icon: <Undo2 size={15} aria-hidden /> },
  ];
  return all.filter((action) => action !== false);
}

/** Does it, says so, and shows the deployment that it made, if it made one. */
export function useAct() {
  const cache = useQueryClient();
  const navigate = useNavigate();
  return useMutation({
    mutationFn: ({ deed, of }: { deed: Deed; of: Deployment }) => {
      const params = { params: { path: { id: of.id } } };
      if (deed === "retry") return take(client.POST("/api/deployments/{id}/retry", { ...params, body: {} }));
      if (deed === "rollback") return take(client.POST("/api/deployments/{id}/rollback", { ...params, body: {} }));
      return take(client.POST(`/api/deployments/{id}/${deed}`, params));
    },
    onSuccess: async (now, { deed, of }) => {
      say(`${of.repo} ${SAYS[deed]}`);
      cache.setQueryData(["deployment", now.id], now);
      void cache.invalidateQueries({ queryKey: ["deployments"] });
      if (of.sandbox) void cache.invalidateQueries({ queryKey: ["sandbox", of.sandbox] });
      if (now.id !== of.id) await navigate({ to: "/deployments/$id", params: { id: now.id } });
    },
    onError: complain,
  });
}
