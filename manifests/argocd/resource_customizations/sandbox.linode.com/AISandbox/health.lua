-- The status of an AISandbox follows kstatus. Deletion is judged by Argo CD before this runs.
local hs = { status = "Progressing", message = "The operator has not seen this version of the sandbox yet" }
local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return hs
end
local found = {}
for _, condition in ipairs(status.conditions) do
  found[condition.type] = condition
end
local ready = found.Ready
if ready == nil then
  return hs
end
hs.message = ready.message
if found.Reconciling ~= nil and found.Reconciling.status == "True" then
  if ready.reason == "Suspended" then
    hs.message = found.Reconciling.message
  end
elseif found.Stalled ~= nil and found.Stalled.status == "True" then
  hs.status = "Degraded"
  hs.message = found.Stalled.message
elseif ready.status == "True" then
  hs.status = "Healthy"
elseif ready.reason == "Suspended" then
  hs.status = "Suspended"
end
return hs
